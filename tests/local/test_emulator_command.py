"""`python -m local.emulator`: a function in the foreground, as the compose profile `lambda` runs it."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

REPOSITORY = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "local.emulator"]
FUNCTION = [sys.executable, "-m", "functions.runtime", "tests.runtime.emulated.asgi_app.app"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal_comes_and_leaves_no_process(number):
    """The function's own process ends first, gracefully, and its output was ours."""
    process = subprocess.Popen(
        [*COMMAND, "--name", "raven", *FUNCTION], cwd=REPOSITORY, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    try:
        name, _, url = process.stderr.readline().strip().partition(": ")
        answer = httpx.get(f"{url}/", timeout=30, trust_env=False).json()
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (name, process.returncode, errors) == ("raven", 0, "")
    assert "shut down" in output
    with pytest.raises(ProcessLookupError):
        os.kill(answer["process"], 0)


def test_a_taken_port_is_told():
    """With what can be done about it, and no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [*COMMAND, "--port", str(port), *FUNCTION], cwd=REPOSITORY, capture_output=True, text=True, timeout=30,
            check=False,
        )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"127.0.0.1:{port}: ")
    assert ended.stderr.endswith("choose another --port\n")
    assert "Traceback" not in ended.stderr
