"""Servers in processes of their own, on ports of this machine that nobody else can reach."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from local.tiers import HTTP_PROTOCOL

READY_WITHIN_S = 120
# Standard output is for the figures.
QUIET = {"LOG_FORMAT": "text", "LOG_LEVEL": "error"}
# What the tiers tell uvicorn.
AS_SERVED = ("--http", HTTP_PROTOCOL)


def huginn_server(checkpoint: Path, **environ: str) -> AbstractContextManager[tuple[int, int]]:
    """Serve ``checkpoint`` by the llm function; give the port and the process id once it is ready."""
    return tier_server("llm", {"CKPT_PATH": str(checkpoint), "METRICS_PORT": "0", **environ})


def tier_server(tier: str, environ: Mapping[str, str]) -> AbstractContextManager[tuple[int, int]]:
    """Serve a function; give its port and process id once it is ready."""
    return app_server(f"functions.{tier}.handler:app", "/readyz", environ, *AS_SERVED)


@contextmanager
def app_server(app: str, ready_path: str, environ: Mapping[str, str], *flags: str) -> Iterator[tuple[int, int]]:
    """Serve an ASGI app by uvicorn with ``flags``; give its port and process id once ``ready_path`` answers 200."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--log-level", "error", *flags]
    process = subprocess.Popen(command, env={**os.environ, **QUIET, **environ})
    try:
        wait_until_ready(f"http://127.0.0.1:{port}{ready_path}", process)
        yield port, process.pid
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def as_folder(checkpoint: Path) -> Iterator[Path]:
    """Give a checkpoint folder: ``checkpoint`` itself, or what it becomes when a .pt of the predecessor is imported."""
    if checkpoint.is_dir():
        yield checkpoint
        return
    from functions.llm.checkpoints.checkpoint import save_checkpoint
    from functions.llm.checkpoints.torch_import import import_torch_checkpoint

    model, tokenizer = import_torch_checkpoint(checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder, "predecessor"), model, tokenizer, "")
        yield Path(folder, "predecessor")


def wait_until_ready(address: str, process: subprocess.Popen[bytes]) -> None:
    """Return once ``address`` answers 200; RuntimeError if it does not in time, or the process has ended."""
    # Without proxies: the address is this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with opener.open(address, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise RuntimeError(f"{address} was not ready within {READY_WITHIN_S} s")
