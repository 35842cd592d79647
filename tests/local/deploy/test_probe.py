"""A stream is told from an answer that was held back, through a Function URL of either mode."""

import json
import sys

import pytest

from local.deploy.probe import Arrival, ProbeError, UnjudgedError, came_apart, count_apart, probe_stream
from local.emulator import Emulator
from tests.undisturbed import undisturbed

COMMAND = [sys.executable, "-m", "functions.runtime", "tests.local.deploy.streaming_app.app"]


def arrivals(*times_s: float) -> list[Arrival]:
    """A byte at each of these times."""
    return [Arrival(at_s, 1) for at_s in times_s]


@undisturbed
def test_a_streaming_url_streams():
    """All of the text, in pieces, the first long before the last."""
    with Emulator(COMMAND) as emulator:
        answer = probe_stream(emulator.url)
        event = json.loads(emulator.invocations[0].event)
    # Every vocabulary has a first token; not every one has the letters of a word.
    assert json.loads(event["body"])["prompt"] == [0]
    assert answer.body == b"x" * 1024
    assert count_apart(answer.arrivals) >= 5
    assert answer.spread_s > 0.05


@undisturbed
def test_an_api_that_asks_who_is_there_is_shown_the_page_s_session():
    """As a browser would, and nothing else that the page has set."""
    with Emulator(COMMAND, {"ASKS": "1"}) as emulator:
        answer = probe_stream(emulator.url)
        methods = [json.loads(each.event)["requestContext"]["http"]["method"] for each in emulator.invocations]
    assert methods == ["POST", "GET", "POST", "POST"]
    assert answer.body == b"x" * 1024


def test_a_buffered_url_does_not():
    """Everything is right but the times, and the message says so with figures."""
    with (
        Emulator(COMMAND, mode="buffered") as emulator,
        pytest.raises(ProbeError, match="does not stream: 1,024 bytes"),
    ):
        probe_stream(emulator.url)


@pytest.mark.parametrize(
    ("environment", "error", "message"),
    [
        ({"STATUS": "502"}, ProbeError, "the answer is 502"),
        ({"STATUS": "403"}, ProbeError, "the answer is 403"),
        ({"STATUS": "404"}, ProbeError, "the answer is 404"),
        (
            {"STATUS": "422"},
            UnjudgedError,
            "the answer is 422: .* whether it streams cannot be judged",
        ),
        ({"STATUS": "429"}, UnjudgedError, "the answer is 429"),
        ({"LAST_EVENT": "error"}, ProbeError, "does not end with done"),
    ],
)
def test_a_stream_that_never_gets_well_is_given_up(environment, error, message):
    """After some patience: a new deployment may need a while."""
    pauses = []
    with Emulator(COMMAND, environment) as emulator, pytest.raises(error, match=f"(?s){message}"):
        # Time passes only while it waits, however slow the machine is.
        probe_stream(emulator.url, patience_s=7, sleep=pauses.append, clock=lambda: sum(pauses))
    assert pauses == [3, 3]


def test_nobody_there():
    """Who does not answer is named."""
    with pytest.raises(ProbeError, match="does not answer"):
        probe_stream("http://127.0.0.1:9", patience_s=0)


def test_what_was_held_back_does_not_look_apart():
    """Neither in one piece, nor in a few after a lost packet, nor in many that come at once."""
    assert not came_apart([])
    assert not came_apart(arrivals(1.0))
    assert not came_apart(arrivals(1.0, 1.2, 1.4))
    assert not came_apart(arrivals(*(1 + 0.0001 * each for each in range(50))))
    assert not came_apart(arrivals(*(1 + 0.003 * each for each in range(6))))


def test_fast_models_stream_too():
    """Ten thousand tokens a second, sixteen at a time: too close for each gap to count, and apart all the same."""
    assert came_apart(arrivals(*(0.05 + 0.0016 * each for each in range(64))))
