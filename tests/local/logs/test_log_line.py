"""A line of a log, as it was written and as a person reads it."""

import json
from datetime import UTC, datetime

import pytest

from local.logs.log_line import LogLine

NOW = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
REQUEST = {
    "time": "2026-11-23T01:02:03.004Z", "level": "info", "tier": "llm", "event": "request", "method": "POST",
    "path": "/generate", "status": 200, "duration_ms": 12.5, "tokens": 3, "request_id": "raven-1", "trace_id": "f00",
}  # fmt: skip


def line_of(**fields) -> LogLine:
    return LogLine.parse(json.dumps({**REQUEST, **fields}), "backend", NOW)


def test_json_of_ours_says_who_and_when():
    """Whoever has passed it on; and it goes out as it came in."""
    line = line_of()
    assert (line.tier, line.time, line.is_urgent) == ("llm", datetime(2026, 11, 23, 1, 2, 3, 4000, UTC), False)
    assert json.loads(line.to_json()) == REQUEST
    assert line.text() == "POST /generate 200 12.5 ms  tokens=3"


@pytest.mark.parametrize(
    "text",
    ["", "plain", "{", "[1]", '"x"', "7", "{}", '{"time": 3, "tier": "llm"}', '{"time": "x"}', "[" * 100_000,
     '{"time": "0001-01-01T00:00:00+12:00", "tier": "llm"}'],
)  # fmt: skip
def test_anything_else_was_said_now(text):
    """By who passed it on; it is shown, for it comes from outside of the log."""
    line = LogLine.parse(text, "llm", NOW)
    assert (line.tier, line.time, line.text(), line.is_urgent) == ("llm", NOW, text, True)
    kept = LogLine.parse(line.to_json(), "", NOW)
    assert (kept.tier, kept.time, kept.text()) == ("llm", NOW, text)


def test_a_warning_and_a_failure_are_urgent_and_told_with_their_end():
    """The last line of a traceback beside the message, or all of it."""
    traceback = "Traceback:\n  File x\nValueError: planted"
    said = {"time": REQUEST["time"], "tier": "llm", "level": "error", "message": "It failed", "exception": traceback}
    line = LogLine.parse(json.dumps(said), "", NOW)
    assert line.is_urgent
    assert line.text() == "ERROR It failed  ValueError: planted"
    assert line.text(whole=True) == "ERROR It failed\n" + traceback


def test_nothing_that_a_terminal_obeys_comes_out():
    """A path is anybody's, and may hold what clears a screen or forges a line."""
    line = line_of(path="/\x1b[2J\nforged\u2028", request_id="\x1b[31m", tier="\x07")
    shown = line.to_terminal(colour=False)
    assert shown.isprintable()
    assert r"/\x1b[2J\nforged" in shown
    assert line.text(whole=True).isprintable()


def test_colours_tell_the_tiers_and_the_failures():
    """Only where they are wanted."""
    assert "\x1b" not in line_of().to_terminal(colour=False)
    shown = {tier: line_of(tier=tier).to_terminal(colour=True) for tier in ("frontend", "backend", "llm", "prometheus")}
    assert len({text[text.index("\x1b") :][:5] for text in shown.values()}) == 4
    assert "\x1b[31m" not in "".join(shown.values())
    assert "\x1b[31mPOST" in line_of(status=502).to_terminal(colour=True)
