"""No response is cut silently by the end of the function's time."""

import json
import time

import httpx
import pytest

from tests.undisturbed import undisturbed


def until_cut_off(http: httpx.Client, url: str) -> str:
    """What arrives of a response that is not complete."""
    text = ""
    with http.stream("GET", url) as response:
        try:
            for chunk in response.iter_text():
                text += chunk
        except httpx.RemoteProtocolError:
            return text
    raise AssertionError("the response was complete")


def events_of(text: str) -> list[tuple[str, dict]]:
    """Names and data of the events of a stream, the last of which must be whole."""
    *frames, rest = text.split("\n\n")
    assert rest == ""
    fields = [dict(line.split(": ", 1) for line in frame.splitlines()) for frame in frames]
    return [(event.get("event", "message"), event["data"]) for event in fields]


@undisturbed
def test_an_endless_stream_ends_with_its_error_event(run, http):
    """The app is stopped in time, the last event says why, Lambda counts an error, and the process lives on."""
    with run(timeout_s=2) as emulator:
        text = until_cut_off(http, f"{emulator.url}/endless")
        invocation = emulator.invocations[0]
        assert time.time() < invocation.deadline_ms / 1000
        while "stopped" not in emulator.log():
            time.sleep(0.01)
        assert http.get(emulator.url).json()["process"] == emulator.environments[0].pid
    *tokens, (name, data) = events_of(text)
    assert len(tokens) > 10
    assert {event for event, _ in tokens} == {"token"}
    assert name == "error"
    assert json.loads(data)["code"] == "deadline_exceeded"
    assert json.loads(data)["retryable"] is True
    assert invocation.failure.error_type == "Runtime.DeadlineExceeded"


@undisturbed
def test_half_an_event_does_not_swallow_the_error(run, http):
    """The error event begins a line of its own even where the app was in the middle of one."""
    with run(timeout_s=2) as emulator:
        http.get(emulator.url)  # the start is not what is measured
        text = until_cut_off(http, f"{emulator.url}/departure")
    (_, half), (name, _) = events_of(text)
    assert half == "half an eve"
    assert name == "error"


@undisturbed
def test_an_app_that_has_not_begun_is_answered_for(run, http):
    """Before the start there is still a status to say it with."""
    with run(timeout_s=2) as emulator:
        response = http.get(f"{emulator.url}/stuck")
        assert emulator.invocations[0].failure is None
        assert http.get(emulator.url).json()["process"] == emulator.environments[0].pid
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "deadline_exceeded"


@pytest.mark.parametrize(
    ("environment", "header"),
    [({}, "x-request-timeout-s"), ({"RUNTIME_TIMEOUT_HEADER": "X-Our-Limit"}, "x-our-limit")],
)
@undisturbed
def test_the_app_is_told_how_long_it_has(run, http, environment, header):
    """Less than the function has, and never more than the client allows, by the header that the app knows."""
    with run("app", environment, timeout_s=20) as emulator:

        def told(*asked: str) -> str:
            return http.get(emulator.url, headers=[(header, each) for each in asked]).json()["headers"][header]

        assert 18 < float(told()) <= 19
        assert told("3") == "3"
        assert 18 < float(told("600")) <= 19
        assert 18 < float(told("nan")) <= 19
        # Nonsense is the app's to refuse.
        assert told("soon") == "soon"
