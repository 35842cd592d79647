"""An ASGI app's response, from its first message to its end, on its way through Lambda."""

import json
import time

import httpx
import pytest

from tests.undisturbed import undisturbed


def until_cut_off(http: httpx.Client, url: str) -> bytes:
    """What arrives of a response that is not complete."""
    received = b""
    with http.stream("GET", url) as response:
        try:
            for chunk in response.iter_raw():
                received += chunk
        except httpx.RemoteProtocolError:
            return received
    raise AssertionError("the response was complete")


def test_a_message_has_arrived_before_the_next_is_sent(run, http, tmp_path):
    """The app waits with each chunk until the client has the one before, so nothing in between holds any back."""
    with run() as emulator, http.stream("GET", f"{emulator.url}/gated?{tmp_path}") as response:
        for number, chunk in enumerate(response.iter_raw()):
            assert chunk == b"chunk %d" % number
            (tmp_path / str(number)).touch()
    assert number == 4


def test_each_message_is_a_chunk_of_its_own(run, http):
    """Of a Lambda client each chunk of the payload is what the app sent at once; the head comes before."""
    with run() as emulator:
        assert http.get(f"{emulator.url}/slow").text == "0123456789"
        prelude, delimiter, *chunks = [data for _, data in emulator.invocations[0].arrivals]
    assert json.loads(prelude) == {"statusCode": 200, "headers": {"content-type": "text/plain"}}
    assert delimiter == bytes(8)
    assert chunks == [b"%d" % number for number in range(10)]


def test_status_headers_and_cookies(run, http):
    """Names in lower case, repeated headers joined, cookies one by one, bytes beyond ASCII as they were."""
    with run() as emulator:
        response = http.get(f"{emulator.url}/headed")
    assert (response.status_code, response.text) == (418, "short and stout")
    assert response.headers["x-one"] == "1, 2"
    assert response.headers["x-two"].encode("latin-1") == b"caf\xe9"
    assert response.headers.get_list("set-cookie") == ["a=1; Path=/", "b=2"]


def test_a_buffered_url_gives_the_same_at_once(run, http):
    """Where the Function URL buffers, the same answer comes with a length."""
    with run(mode="buffered") as emulator:
        response = http.get(f"{emulator.url}/headed")
    assert (response.status_code, response.text) == (418, "short and stout")
    assert response.headers["content-length"] == "15"


@pytest.mark.parametrize(
    ("path", "error"),
    [("fail_early", "RangeError"), ("no_start", "Runtime.IncompleteResponse"), ("unheard_of", "KeyError")],
)
def test_a_failure_before_the_start_is_an_error(run, http, path, error):
    """It goes to /error with its name and message, the client gets a 502, and the process goes on."""
    with run() as emulator:
        assert http.get(f"{emulator.url}/{path}").status_code == 502
        failure = emulator.invocations[0].failure
        assert http.get(emulator.url).json()["process"] == emulator.environments[0].pid
    assert emulator.environments[0].requests[1].endswith("/error")
    body = json.loads(failure.body)
    assert failure.error_type == body["errorType"] == error
    assert body.keys() == {"errorType", "errorMessage", "stackTrace"}


@pytest.mark.parametrize(
    ("path", "error"), [("two_chunks?fail", "RangeError"), ("return_early", "Runtime.IncompleteResponse")]
)
def test_a_failure_after_the_start_cuts_the_response_off(run, http, path, error):
    """What came before has arrived; the error is in the two trailers, and the process goes on."""
    with run() as emulator:
        received = until_cut_off(http, f"{emulator.url}/{path}")
        assert http.get(emulator.url).json()["process"] == emulator.environments[0].pid
        failure = emulator.invocations[0].failure
    assert received == ("onetwo é".encode() if "two" in path else b"half")
    assert failure.error_type == json.loads(failure.body)["errorType"] == error


@pytest.mark.parametrize(("method", "status", "body"), [("GET", 200, "\n"), ("GET", 204, ""), ("HEAD", 200, "")])
def test_there_is_always_a_byte(run, http, method, status, body):
    """An answer without a body would never arrive; one that may have none loses the byte on its way."""
    with run() as emulator:
        response = http.request(method, f"{emulator.url}/empty?{status}")
        assert emulator.invocations[0].arrivals[-1][1] == b"\n"
    assert (response.status_code, response.text) == (status, body)


@undisturbed
def test_a_client_that_leaves_changes_nothing(run, http):
    """As on AWS the function is not told, and works to its end; only then is it free for the next."""
    with run(max_environments=1) as emulator:
        with http.stream("GET", f"{emulator.url}/slow") as response:
            next(response.iter_raw())
        assert http.get(emulator.url).status_code == 429
        emulated = emulator.invocations[0]
        while not emulated.ended.is_set():
            time.sleep(0.01)
        assert emulated.payload.endswith(b"0123456789")
        # The answer has ended a moment before the app hears of it.
        while "slow is done" not in emulator.log():
            time.sleep(0.01)


def test_work_after_the_response_is_done_before_the_next_request(run, http):
    """Lambda may freeze a process that asks for work; so it asks when the app has returned."""
    with run(max_environments=1) as emulator:
        assert http.get(f"{emulator.url}/after").json() == "done"
        done = False
        while not done:
            times_asked = emulator.environments[0].requests.count("GET invocation/next")
            done = "worked on" in emulator.log()
            assert times_asked == 1 or done
            time.sleep(0.01)


def test_more_than_six_megabytes_stream(run, http):
    """The limit of one body does not hold for chunks."""
    with run() as emulator:
        assert len(http.get(f"{emulator.url}/large").content) == 7_000_000
