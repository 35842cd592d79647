"""What XLA compiled once need not be compiled by the next process."""

import os
import subprocess
import sys
import textwrap

import pytest

COMPILE = """
    import logging, sys
    from pathlib import Path
    import jax, numpy as np
    from functions.llm.inference.jit_cache import keep_compiled
    logging.basicConfig(level=logging.INFO)
    keep_compiled(Path(sys.argv[1]))
    hits = []
    jax.monitoring.register_event_listener(lambda event, **_: hits.append(event.endswith("/cache_hits")))
    print(jax.jit(lambda x: x + 1)(np.float32(1)), any(hits))
"""


def compiled_in(folder, before=""):
    command = [sys.executable, "-W", "error", "-c", before + textwrap.dedent(COMPILE), folder]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return run.stdout.split(), run.stderr


def test_the_second_process_compiles_nothing(tmp_path):
    """And the first makes the folder."""
    folder = tmp_path / "new" / "jit"
    assert compiled_in(folder)[0] == ["2.0", "False"]
    assert compiled_in(folder)[0] == ["2.0", "True"]


def test_a_disk_that_cannot_be_written_is_no_reason_to_fail(tmp_path):
    """Neither to make the folder, nor to write into one that is there."""
    (tmp_path / "file").touch()
    found, said = compiled_in(tmp_path / "file" / "jit")
    assert found == ["2.0", "False"]
    assert "is not kept" in said


def test_a_folder_that_may_only_be_read_is_read(tmp_path):
    """As in an image that brings its cache along: what is there is found, and nothing else is written."""
    read_only = "import os; os.access = lambda path, mode: mode != os.W_OK"
    assert compiled_in(tmp_path, read_only)[0] == ["2.0", "False"]
    assert list(tmp_path.iterdir()) == []
    compiled_in(tmp_path)
    assert compiled_in(tmp_path, read_only)[0] == ["2.0", "True"]


@pytest.mark.parametrize("whose", ["others may write to it", "somebody else's"])
def test_a_folder_of_others_is_left_alone(tmp_path, whose):
    """What is in it is machine code, and runs as whoever serves."""
    assert compiled_in(tmp_path)[0] == ["2.0", "False"]
    kept = sorted(tmp_path.iterdir())
    before = ""
    if whose == "somebody else's":
        before = f"import os; os.geteuid = lambda: {os.geteuid() + 1}"
        if os.geteuid() == 0:
            os.chown(tmp_path, 12345, -1)
    else:
        tmp_path.chmod(0o777)
    found, said = compiled_in(tmp_path, before)
    assert found == ["2.0", "False"]
    assert "WARNING" in said
    assert f"{tmp_path}: it belongs to somebody else, or others may write to it" in said
    assert sorted(tmp_path.iterdir()) == kept


def test_only_the_owner_may_write_into_a_new_folder(tmp_path):
    """Whatever the umask, else the next process would not trust it."""
    folder = tmp_path / "jit"
    compiled_in(folder, "import os; os.umask(0)")
    assert folder.stat().st_mode & 0o777 == 0o755
