"""What the load through both web tiers says follows from the stamps; and a small one is carried without a loss."""

import json
import pickle
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from benchmarks.paced_llm import TOKENS_PER_S
from benchmarks.stamp_client import StampedStream, steady
from benchmarks.web_load import BEGIN_EVERY_S, DIRECT, Passage, WebLoadReport, passage
from benchmarks.web_tiers import PAGE, V1, Way, paced_llm, tiers_before
from tests.undisturbed import undisturbed


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
    report = WebLoadReport(
        {DIRECT: [found(1), found(5)], PAGE: [found(3), found(6, ("503",))], V1: [found(2), found(5)]}
    )
    assert (report.added(PAGE, "p99"), report.added(V1, "p99")) == ([2, 1], [1, 0])
    text = report.as_text()
    assert "50 us a token" in text
    assert f"{PAGE}, failed: 503" in text
    assert f"{V1}, failed" not in text
    assert json.loads(json.dumps(report.as_json()))["added_ms"][PAGE]["p99"] == [2, 1]
    ET.fromstring(report.as_svg())


@pytest.fixture(scope="module")
def ways() -> Iterator[Mapping[str, Way]]:
    """Both tiers before a paced model, as where others are let in."""
    with paced_llm() as llm, tiers_before(llm) as through:
        yield through


@undisturbed
def test_streams_arrive_whole_and_leave_nothing_in_memory(ways):
    """Every token of every stream, from the model through backend and frontend, and from /v1, by quotas.

    What is kept of a token, if only its bytes, is more than this growth; measured are 0.00 to 0.05 MB.
    """
    streams, tokens = 40, 150
    assert streams * BEGIN_EVERY_S < tokens / TOKENS_PER_S  # so that there is a time in which all of them run
    assert set(ways) == {PAGE, V1}
    for name, way in ways.items():
        carried = passage(way, streams, tokens)
        assert carried.failures == ()
        # Held back for a dozen tokens it would be more.
        assert 0 < carried.p50 <= min(carried.p99, 250)
        assert set(carried.cpu) == set(carried.growth_mb) == set(way.pids)
        assert max(carried.growth_mb.values()) < 0.25, name


def test_who_asks_is_known_in_the_process_that_reads_too(ways):
    """A way is sent there; the sessions it makes are ones that the tiers accept."""
    for way in ways.values():
        sent = pickle.loads(pickle.dumps(way))
        assert passage(sent, streams=2, tokens=1).failures == ()


def test_who_has_no_session_and_no_key_is_no_part_of_the_load(ways):
    """So that what is measured is what holds where others are let in."""
    for way in ways.values():
        assert len(passage(replace(way, headers=dict), streams=2, tokens=1).failures) == 2


def test_a_service_that_is_away_is_a_failure_of_every_stream():
    """And no measurement."""
    with paced_llm() as port:
        pass
    with pytest.raises(ConnectionError):
        passage(Way(port, "/generate/stream"), streams=1, tokens=1)
