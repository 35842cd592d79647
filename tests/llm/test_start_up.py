"""What makes a process start sooner."""

import subprocess
import sys


def test_the_collector_rests_and_then_forgets_what_was_imported():
    """Within the context it is off; after it it is on again, and has nothing to look through."""
    script = """
import gc
from functions.llm.start_up import without_collecting
with without_collecting():
    print(gc.isenabled())
    import json, asyncio
print(gc.isenabled(), gc.get_freeze_count() > 1000, sum(map(len, map(gc.get_objects, range(3)))) < 1000)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True", "True", "True"]


def test_a_failing_import_leaves_the_collector_on():
    """A wrong setting ends the start within the context."""
    script = """
import gc
from functions.llm.start_up import without_collecting
try:
    with without_collecting():
        raise ValueError
except ValueError:
    print(gc.isenabled())
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True"]
