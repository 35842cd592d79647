"""Contenders take turns in processes of their own, and one that fails is named."""

import os
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from benchmarks.contender import ContenderError, take_turns


def writer(file: Path, name: str) -> Generator[int, None, None]:
    """Note each turn in a file; the figure is the process."""
    try:
        yield 0
        while True:
            with file.open("a") as log:
                log.write(name)
            yield os.getpid()
    finally:
        file.with_suffix(f".{name}").touch()


def clumsy(at_start: bool) -> Generator[int, None, None]:
    """Fail at once, or at the first turn."""
    if at_start:
        raise ValueError("no such instruction")
    yield 0
    raise ValueError("no such instruction")


def vanishing() -> Generator[int, None, None]:
    """End the process without a word."""
    yield 0
    os._exit(1)


def test_turns_are_interleaved(tmp_path):
    """A B A B, each in one process of its own, which is closed at the end."""
    log = tmp_path / "log"
    found = take_turns({"one": (writer, (log, "A")), "two": (writer, (log, "B"))}, rounds=3)
    assert log.read_text() == "ABABAB"
    assert [len(set(processes)) for processes in found.values()] == [1, 1]
    assert len({os.getpid(), found["one"][0], found["two"][0]}) == 3
    until = time.monotonic() + 10
    while not all(log.with_suffix(suffix).exists() for suffix in (".A", ".B")) and time.monotonic() < until:
        time.sleep(0.05)
    assert log.with_suffix(".A").exists()
    assert log.with_suffix(".B").exists()


@pytest.mark.parametrize("at_start", [True, False])
def test_a_failure_is_named_with_its_reason(at_start):
    """The contender's own traceback is in the message."""
    with pytest.raises(ContenderError, match=r"(?s)^clumsy: .*no such instruction"):
        take_turns({"clumsy": (clumsy, (at_start,))}, rounds=1)


def test_a_process_that_ends_is_named():
    """Killed for its memory, for example."""
    with pytest.raises(ContenderError, match=r"^vanishing: its process has ended"):
        take_turns({"vanishing": (vanishing, ())}, rounds=1)
