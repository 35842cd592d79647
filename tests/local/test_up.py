"""`huginn up` as it is: real tiers, real sockets, real signals."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.ports import LISTENERS

REPOSITORY = Path(__file__).parents[2]
STARTS_WITHIN_S = 120
STOPS_WITHIN_S = 10
UP = [sys.executable, "-m", "local.cli", "up"]


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


@pytest.fixture
def start(tiny_checkpoint, free_ports) -> Iterator:
    """Start `huginn up` on free ports; ended after the test."""
    started = []

    def start_up(*arguments: str, checkpoint: Path = tiny_checkpoint, **ports: int) -> Up:
        started.append(Up(checkpoint, {**free_ports, **ports}, *arguments))
        return started[-1]

    yield start_up
    for up in started:
        up.close()


def test_everything_answers_and_ctrl_c_leaves_nothing(start):
    """The page, the API, the model, the metrics and the printed command; a stream comes in pieces; all ends with 0."""
    up = start()
    up.wait_until_ready()
    ports = up.ports

    said = "".join(up.out)
    for port in ports.values():
        assert f"http://127.0.0.1:{port}" in said

    status, page = get(ports["page"], "/")
    assert (status, b"<html" in page) == (200, True)
    assert get(ports["api"], "/readyz")[0] == 200
    assert json.loads(get(ports["llm"], "/models")[1])["models"][0]["name"] == "tiny"

    # As the page asks: through all three tiers, so that any of them could hold the stream back.
    connection = http.client.HTTPConnection("127.0.0.1", ports["page"], timeout=30)
    body = json.dumps({"prompt": "ROMEO:", "max_tokens": 400, "seed": 1})
    connection.request("POST", "/api/llm/stream", body, {"content-type": "application/json"})
    response = connection.getresponse()
    assert response.status == 200
    pieces = list(iter(lambda: response.read1(65536), b""))
    connection.close()
    assert len(pieces) >= 3
    assert b"".join(pieces).decode("utf-8")

    status, metrics = get(ports["metrics"], "/metrics")
    assert status == 200
    assert re.search(rb"^huginn_llm_generated_tokens_total 400", metrics, re.MULTILINE)

    command = next(line for line in up.out if line.strip().startswith("curl"))
    printed = subprocess.run(["sh", "-c", command], capture_output=True, timeout=60, check=False)
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.decode("utf-8").strip()

    pids = up.tier_pids()
    assert set(pids) == {"llm", "backend", "frontend"}
    os.killpg(up.process.pid, signal.SIGINT)
    assert up.wait_for_end() == 0
    wait_until_gone(pids)
    assert "Traceback" not in "".join(up.err)


def test_a_stream_that_is_being_read_does_not_hold_up_the_end(start):
    """SIGTERM with an answer under way: all ends in time, and the reader is not left waiting."""
    up = start()
    up.wait_until_ready()
    connection = http.client.HTTPConnection("127.0.0.1", up.ports["page"], timeout=30)
    body = json.dumps({"prompt": "ROMEO:", "max_tokens": 4096, "ignore_eos": True})
    connection.request("POST", "/api/llm/stream", body, {"content-type": "application/json"})
    response = connection.getresponse()
    assert response.read1(1)
    pids = up.tier_pids()
    up.process.send_signal(signal.SIGTERM)
    assert up.wait_for_end() == 0
    wait_until_gone(pids)
    connection.close()


@pytest.mark.parametrize("tier", ["llm", "backend", "frontend"])
def test_one_tier_dying_ends_the_others_with_a_message(start, tier):
    """It says which one died and how, with exit code 1; before all are ready as after."""
    up = start()
    pids = up.wait_until_started()
    if tier == "llm":
        up.wait_until_ready()
    os.kill(pids[tier], signal.SIGKILL)
    assert up.wait_for_end() == 1
    assert f"huginn: {tier} was killed by SIGKILL" in "".join(up.err)
    wait_until_gone(pids)


def test_our_own_violent_death_leaves_nothing(start):
    """Nobody is there to stop the tiers, and they end all the same."""
    up = start()
    up.wait_until_ready()
    pids = up.tier_pids()
    assert len(pids) == 3
    up.process.kill()
    wait_until_gone(pids)


def test_ctrl_c_while_starting_leaves_nothing(start):
    """Before anything has answered."""
    up = start()
    pids = up.wait_until_started()
    os.killpg(up.process.pid, signal.SIGINT)
    assert up.wait_for_end() == 0
    wait_until_gone(pids)
    assert up.out == []


@pytest.mark.parametrize("listener", LISTENERS, ids=lambda listener: listener.name)
def test_a_taken_port_is_named_before_anything_starts(start, taken_port, listener):
    """With the flag and the variable that move it; exit code 4."""
    up = start(**{listener.name: taken_port})
    assert up.wait_for_end(30) == 4
    said = "".join(up.err)
    assert f"huginn: port {taken_port}, where {listener.name} is to listen, is taken" in said
    assert listener.option in said
    assert listener.variable in said
    assert up.out == []


def test_a_missing_checkpoint_is_named(start, tmp_path):
    """Bad input, exit code 3, with the way to another one."""
    up = start(checkpoint=tmp_path / "nothing")
    assert up.wait_for_end(30) == 3
    assert f"there is no checkpoint at {tmp_path / 'nothing'}" in "".join(up.err)
    assert "--ckpt" in "".join(up.err)


def test_a_damaged_checkpoint_is_told(start, tiny_checkpoint, tmp_path):
    """Not by waiting for a model that will never be there; exit code 3, as for every bad input."""
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_checkpoint, damaged)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    up = start(checkpoint=damaged)
    assert up.wait_for_end(STARTS_WITHIN_S) == 3
    said = "".join(up.err)
    assert "huginn: llm ended with exit code 3" in said
    assert str(weights) in said
    assert "Traceback" not in said


def test_a_setting_that_is_not_understood_is_told(start, monkeypatch):
    """The tier that refuses it is named, with its words and its exit code, and the others do not stay."""
    monkeypatch.setenv("MAX_PROMPT_CHARS", "many")
    up = start()
    assert up.wait_for_end(STARTS_WITHIN_S) == 2
    said = "".join(up.err)
    assert "huginn: backend ended with exit code 2" in said
    assert "MAX_PROMPT_CHARS" in said
    assert "Traceback" not in said
