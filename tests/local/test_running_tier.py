"""A tier as a process: what it says is passed on and kept, and how it ended is told."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from local.logs.log_line import LogLine
from local.running_tier import KEPT_LOG_LINES, RunningTier


@pytest.fixture
def start():
    """Start Python programs as tiers; all are ended after the test. Gives the tier and the lines it has said."""
    tiers = []

    def start_program(program: str) -> tuple[RunningTier, list[LogLine]]:
        lines: list[LogLine] = []
        tier = RunningTier("llm", [sys.executable, "-u", "-c", program], os.environ, lines.append)
        tiers.append(tier)
        return tier, lines

    yield start_program
    for tier in tiers:
        tier.kill()
        tier.close()


def wait_until(condition, timeout_s: float = 60.0) -> None:
    """Return once it holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def test_both_outputs_are_passed_on_with_the_tiers_name(start):
    """Line by line, while it runs; bytes that are not UTF-8 do not stop it."""
    tier, lines = start(
        "import os, sys\nprint('é one')\nprint('two', file=sys.stderr)\nos.write(1, b'\\xff\\n')\nsys.stdin.read()"
    )
    wait_until(lambda: len(lines) == 3)
    assert tier.is_alive
    assert [(line.tier, line.text()) for line in lines] == [("llm", "é one"), ("llm", "two"), ("llm", "�")]


def test_an_exit_code_is_told_with_the_last_lines(start):
    """Only the last: a tier that has run for a week has said a lot."""
    tier, _ = start("for i in range(1000): print('line', i)\nraise SystemExit(3)")
    ended = tier.how_it_ended()
    assert ended.startswith("ended with exit code 3")
    assert ended.endswith("line 999")
    assert ended.count("\n") == KEPT_LOG_LINES


def test_a_signal_is_told_by_name(start):
    """As somebody would look for it."""
    tier, _ = start("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert tier.how_it_ended() == "was killed by SIGKILL, and said nothing"


def test_asked_to_stop_it_ends_by_itself(start):
    """With SIGTERM, which it may handle."""
    tier, lines = start(
        "import signal, time\nsignal.signal(signal.SIGTERM, lambda *_: exit(7))\nprint('ready')\ntime.sleep(60)"
    )
    wait_until(lambda: lines)
    tier.ask_to_stop()
    assert "exit code 7" in tier.how_it_ended()


def test_a_kill_takes_what_it_started_along(start):
    """The whole group: a child of a tier is not left behind."""
    tier, lines = start(
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid)\ntime.sleep(60)"
    )
    wait_until(lambda: lines)
    child = int(lines[0].text())
    tier.kill()
    assert not tier.is_alive
    wait_until(lambda: not is_running(child))


def is_running(pid: int) -> bool:
    """Whether there is such a process that is more than an entry to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_its_group_is_its_own(start):
    """So that the terminal's Ctrl-C reaches us alone, and we stop the tiers in our order."""
    tier, lines = start("import os; print(os.getpgrp()); input()")
    wait_until(lambda: lines)
    assert int(lines[0].text()) != os.getpgrp()
    tier.ask_to_stop()
    assert signal.SIGTERM.name in tier.how_it_ended()


def test_whoever_listens_may_fail_and_the_tier_goes_on():
    """Its pipe would fill, and it would stand still in the middle of a request; that lines are missing is told."""

    def fail(_: LogLine) -> None:
        raise ValueError("planted")

    tier = RunningTier("llm", [sys.executable, "-c", "for _ in range(30000): print('a line')"], os.environ, fail)
    try:
        wait_until(lambda: not tier.is_alive)
        assert "ended with exit code 0" in tier.how_it_ended()
        assert "planted" in tier.how_it_ended()
    finally:
        tier.kill()
        tier.close()
