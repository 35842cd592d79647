"""A test that needs the machine for itself is judged when it had it."""

import os
import signal
import subprocess
from contextlib import nullcontext

import pytest

from tests import undisturbed
from tests.undisturbed import PAUSE_S, TRIES, Watch


class Test:
    """Fails for some times, on a machine that pauses for so long each time; counts how often it was tried."""

    __test__ = False

    def __init__(self, monkeypatch, fails, *pauses):
        self.fails, self.tried = fails, 0
        watches = iter([FakeWatch(pause_s) for pause_s in pauses])
        monkeypatch.setattr(undisturbed, "Watch", lambda: next(watches))

    def run(self):
        self.tried += 1
        assert self.tried > self.fails


class FakeWatch(nullcontext):
    """Has seen a pause of so many seconds."""

    def __init__(self, pause_s):
        super().__init__()
        self.longest_pause_s = pause_s


def test_a_failure_without_a_pause_is_one(monkeypatch):
    """At once."""
    test = Test(monkeypatch, 1, 0.0, 0.0)
    with pytest.raises(AssertionError):
        undisturbed.undisturbed(test.run)()
    assert test.tried == 1


def test_a_failure_in_a_pause_is_tried_again(monkeypatch):
    """Until it holds."""
    test = Test(monkeypatch, 2, 2 * PAUSE_S, 1.0, 0.0)
    undisturbed.undisturbed(test.run)()
    assert test.tried == 3


def test_what_was_not_raised_is_a_failure_too(monkeypatch):
    """pytest's own failures are no common exceptions."""
    tried = []

    def test():
        tried.append(True)
        if len(tried) == 1:
            pytest.fail("DID NOT RAISE")

    Test(monkeypatch, 0, 1.0, 0.0)
    undisturbed.undisturbed(test)()
    assert len(tried) == 2


def test_what_fails_every_time_is_a_failure(monkeypatch):
    """However often the machine pauses."""
    test = Test(monkeypatch, TRIES, *[1.0] * TRIES)
    with pytest.raises(AssertionError):
        undisturbed.undisturbed(test.run)()
    assert test.tried == TRIES


def test_a_pause_is_seen():
    """One in which this process does not run at all."""
    with Watch() as watch:
        waking = subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -CONT {os.getpid()}"])
        os.kill(os.getpid(), signal.SIGSTOP)
    waking.wait()
    assert watch.longest_pause_s > 2 * PAUSE_S
