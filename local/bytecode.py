"""Bytecode for another machine's Python: found where a cold start has no time to compile, and nowhere to keep it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath


def find_python(version: str) -> str | None:
    """Give a Python of that version (such as 3.12): this one, or one on PATH; bytecode fits no other. None: none."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    found = shutil.which(f"python{version}")
    # A name on PATH may be a launcher for a version that is not there.
    return found if found and _is_python(found, version) else None


def compile_tree(folder: Path, python: str, runs_at: PurePosixPath) -> None:
    """Put bytecode beside all sources in ``folder``, as if they were at ``runs_at``.

    Unchecked: a file's time is not looked at, so all times in an archive can be the same. One process and a fixed
    hash seed: the order in which constants are met, and of sets among them, is then the same every time.
    """
    command = [
        python, "-P", "-s", "-m", "compileall", "-qq", "--invalidation-mode", "unchecked-hash", "-j", "1",
        "-s", str(folder), "-p", str(runs_at), str(folder),
    ]  # fmt: skip
    # A source that this version cannot compile (a template, a test of syntax errors) stays without; importing it tells.
    subprocess.run(  # noqa: S603
        command, check=False, stdin=subprocess.DEVNULL, env={"PATH": os.defpath, "PYTHONHASHSEED": "0"}
    )


def _is_python(candidate: str, version: str) -> bool:
    question = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        run = subprocess.run(  # noqa: S603
            [candidate, "-I", "-c", question], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return run.stdout.strip() == version
