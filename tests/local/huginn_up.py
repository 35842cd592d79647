"""A `huginn up` that tests start, look into, and end."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from local.ports import LISTENERS
from tests.unused_ports import unused_port

REPOSITORY = Path(__file__).parents[2]
STARTS_WITHIN_S = 120
# It gives up its tiers after seven seconds, which a busy machine makes longer.
STOPS_WITHIN_S = 30
UP = [sys.executable, "-m", "local.cli", "up"]


def unused_ports() -> dict[str, int]:
    """A port that nobody listens on for every listener, by its name."""
    return {listener.name: unused_port() for listener in LISTENERS}


class Up:
    """A `huginn up` in a process group of its own, as a terminal would start it."""

    def __init__(self, checkpoint: Path, ports: dict[str, int], *arguments: str) -> None:
        flags = [part for listener in LISTENERS for part in (listener.option, str(ports[listener.name]))]
        self.ports = ports
        self.process = subprocess.Popen(
            [*UP, "--ckpt", str(checkpoint), *flags, *arguments],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.seen: dict[str, int] = {}
        self.out: list[str] = []
        self.err: list[str] = []
        self.readers = [
            threading.Thread(target=lines.extend, args=(pipe,), daemon=True)
            for lines, pipe in ((self.out, self.process.stdout), (self.err, self.process.stderr))
        ]
        for reader in self.readers:
            reader.start()

    def wait_until_ready(self) -> None:
        """Return once the addresses are printed."""
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not any("Ctrl-C" in line for line in self.out):
            assert self.process.poll() is None, "".join(self.err)
            assert time.monotonic() < deadline, "".join(self.err)
            time.sleep(0.05)

    def wait_until_started(self) -> dict[str, int]:
        """Return once all tiers are processes, though not ready yet; gives tier_pids."""
        deadline = time.monotonic() + STARTS_WITHIN_S
        while len(pids := self.tier_pids()) < 3:
            assert self.process.poll() is None, "".join(self.err)
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return pids

    def wait_for_end(self, within_s: float = STOPS_WITHIN_S) -> int:
        """The exit code, which must come in time."""
        code = self.process.wait(within_s)
        for reader in self.readers:
            reader.join()
        return code

    def tier_pids(self) -> dict[str, int]:
        """The processes that it started, by the name of the tier."""
        pids = {}
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):  # noqa: PTH208
            command = command_of(pid)
            # Between fork and exec it is still ours.
            if parent_of(pid) == self.process.pid and "serve" in command:
                pids[command[command.index("serve") + 1]] = pid
        self.seen |= pids
        return pids

    def close(self) -> None:
        """Leave nothing, whatever has failed."""
        self.tier_pids()
        left = [pid for pid in self.seen.values() if "serve" in command_of(pid)]
        for pid in [*left, self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        self.process.wait()
        for reader, pipe in zip(self.readers, (self.process.stdout, self.process.stderr), strict=True):
            reader.join()
            assert pipe is not None
            pipe.close()


def command_of(pid: int) -> list[str]:
    """The arguments that a process was started with; none if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def parent_of(pid: int) -> int | None:
    """The parent of a process that still runs; None if it has ended, collected or not."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state == "Z" else int(parent)


def wait_until_gone(pids: dict[str, int]) -> None:
    """Return once none of the processes runs."""
    deadline = time.monotonic() + STOPS_WITHIN_S
    while left := [name for name, pid in pids.items() if parent_of(pid) is not None]:
        assert time.monotonic() < deadline, f"left running: {left}"
        time.sleep(0.05)


def get(port: int, path: str) -> tuple[int, bytes]:
    """Status and body of a GET."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
