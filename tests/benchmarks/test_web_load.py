"""What the load through both web tiers says follows from the stamps; and a small one is carried without a loss."""

import json
import xml.etree.ElementTree as ET

import pytest

from benchmarks.paced_llm import TOKENS_PER_S
from benchmarks.stamp_client import StampedStream, steady
from benchmarks.web_load import BEGIN_EVERY_S, DIRECT, THROUGH, Passage, WebLoadReport, paced_llm, passage, tiers_before


def test_only_the_time_in_which_all_streams_run_counts():
    """What leaves before the last one has begun, or after the first has ended, is another load."""
    one = StampedStream(departures=[0, 20, 40, 60], delays=[9, 1, 2, 3])
    other = StampedStream(departures=[30, 50, 70, 90], delays=[4, 5, 9, 9])
    assert sorted(steady([one, other])) == [2, 3, 4, 5]
    assert steady([StampedStream(failure="refused")]) == []


def found(p99_ms: float, failures: tuple[str, ...] = ()) -> Passage:
    return Passage(
        p99_ms / 2, p99_ms, p99_ms, {"frontend": 0.3, "backend": 0.5}, {"frontend": 0, "backend": 1}, failures
    )


def test_what_is_added_is_the_difference_round_by_round():
    """Not that of two medians."""
    report = WebLoadReport({DIRECT: [found(1), found(5)], THROUGH: [found(3), found(6, ("503",))]})
    assert report.added("p99") == [2, 1]
    text = report.as_text()
    assert "50 us a token" in text
    assert "Failed: 503" in text
    assert json.loads(json.dumps(report.as_json()))["added_ms"]["p99"] == [2, 1]
    ET.fromstring(report.as_svg())


def test_streams_through_both_tiers_arrive_whole():
    """Every token of every stream, in order, from the model through backend and frontend."""
    with paced_llm() as llm, tiers_before(llm) as (port, pids):
        carried = passage(port, "/api/llm/stream", pids, streams=25, tokens=TOKENS_PER_S)
    assert carried.failures == ()
    assert 0 < carried.p50 <= carried.p99
    assert set(carried.cpu) == set(carried.growth_mb) == {"frontend", "backend"}
    assert 25 * BEGIN_EVERY_S < 1  # so that there was a time in which all of them ran


def test_a_service_that_is_away_is_a_failure_of_every_stream():
    """And no measurement."""
    with paced_llm() as port:
        pass
    with pytest.raises(ConnectionError):
        passage(port, "/generate/stream", {}, streams=1, tokens=1)
