"""Whether a deployed stream is one: its chunks, timed as they arrive."""

import http.client
import json
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

# Some hundred milliseconds of writing for any model that we know, and with a byte or four for a token still less than
# one round trip of TCP carries (14 kB): what was held back until its end arrives at once, however far away.
TIMED_TOKENS = 1024
# Arrivals closer than this say nothing about whether they were sent apart.
APART_S = 0.002
# A stream held back by somebody comes in one piece, or in a few where a packet was lost and sent again.
LEAST_ARRIVALS = 5
LEAST_SPREAD_S = 0.02

READ_TIMEOUT_S = 90.0
STREAM_PATH = "/api/llm/stream"


@dataclass(frozen=True)
class Arrival:
    """So many bytes, so long after the request was sent."""

    at_s: float
    size_bytes: int


@dataclass(frozen=True)
class Answer:
    """A response as it arrived."""

    status: int
    body: bytes
    arrivals: tuple[Arrival, ...]

    @property
    def first_s(self) -> float:
        """When the first bytes of the body were there."""
        return self.arrivals[0].at_s

    @property
    def spread_s(self) -> float:
        """The time between the first bytes and the last."""
        return self.arrivals[-1].at_s - self.arrivals[0].at_s


class ProbeError(Exception):
    """The deployed stream is none, or does not answer; says what was found."""


class UnjudgedError(Exception):
    """The deployed stack answers, but refuses what it is asked: whether it streams cannot be said."""


def count_apart(arrivals: Sequence[Arrival]) -> int:
    """Give how many groups the arrivals make: a new one begins ``APART_S`` after the last one began."""
    groups, began_s = 0, -APART_S
    for arrival in arrivals:
        if arrival.at_s - began_s >= APART_S:
            groups, began_s = groups + 1, arrival.at_s
    return groups


def came_apart(arrivals: Sequence[Arrival]) -> bool:
    """Give whether the chunks were sent as they were made, and not held back and sent together."""
    if not arrivals:
        return False
    spread_s = arrivals[-1].at_s - arrivals[0].at_s
    return count_apart(arrivals) >= LEAST_ARRIVALS and spread_s >= LEAST_SPREAD_S


def probe_stream(
    page_url: str,
    *,
    patience_s: float = 180.0,
    attempts: int = 3,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Answer:
    """Give the timed answer of a deployment whose chunks arrive apart in time.

    Where the API asks who is there, the page's own session is shown, which an open page gives to whoever loads it.

    First a short event stream is asked for, until it ends with ``done``: functions, permissions and CloudFront may take
    a while until they work together after they were made. Then a longer text is timed. Chunks that were held back
    cannot arrive apart, while a network may bring together what was apart: one good attempt decides.

    Raises:
        ProbeError: no good stream within ``patience_s``, or chunks that arrive together in every attempt.
        UnjudgedError: it answers as it should, that it does not serve such a request, or not now.
    """
    url = page_url.rstrip("/") + STREAM_PATH
    cookie = _wait_for_events(url, page_url, patience_s, sleep, clock)
    for _ in range(attempts):
        answer = _ask(url, cookie, max_tokens=TIMED_TOKENS, accept="text/plain", clock=clock)
        if answer.status != 200:
            raise _failure(answer.status, f"{url} answers {answer.status}: {_beginning(answer.body)}")
        if came_apart(answer.arrivals):
            return answer
    raise ProbeError(
        f"{url} does not stream: {len(answer.body):,} bytes arrived together, in {count_apart(answer.arrivals)} "
        f"separate pieces within {1000 * answer.spread_s if answer.arrivals else 0:.0f} ms "
        f"(expected: {LEAST_ARRIVALS} pieces, {1000 * LEAST_SPREAD_S:.0f} ms)"
    )


def _wait_for_events(
    url: str, page_url: str, patience_s: float, sleep: Callable[[float], None], clock: Callable[[], float]
) -> str:
    """Return once a good event stream has come, and give the cookie with which it did; "" is none."""
    deadline = clock() + patience_s
    cookie = ""
    while True:
        status = 0
        try:
            answer = _ask(url, cookie, max_tokens=8, accept="text/event-stream", clock=clock)
            if answer.status == 401 and not cookie:
                cookie = _session_of(page_url)
                answer = _ask(url, cookie, max_tokens=8, accept="text/event-stream", clock=clock)
            status, reason = answer.status, _why_no_good_events(answer)
        except ProbeError as error:
            reason = str(error)
        if reason is None:
            return cookie
        if clock() + 3 > deadline:
            raise _failure(status, f"{url}: {reason}")
        sleep(3)


def _failure(status: int, words: str) -> Exception:
    # Not allowed to everybody, not there, there for other methods: that is the stack's fault, and no other 4xx is.
    if 400 <= status < 500 and status not in {403, 404, 405}:
        return UnjudgedError(f"{words}; so it is there, but whether it streams cannot be judged")
    return ProbeError(words)


def _why_no_good_events(answer: Answer) -> str | None:
    if answer.status != 200:
        return f"the answer is {answer.status}: {_beginning(answer.body)}"
    events = [line.removeprefix("event:").strip() for line in answer.body.decode().splitlines() if "event:" in line[:6]]
    if not events or events[-1] != "done":
        return f"the stream does not end with done: {_ending(answer.body)}"
    return None if "token" in events else "the stream has no token"


def _session_of(page_url: str) -> str:
    """Give the session that the page hands out, as a Cookie header has it; "" where it hands out none."""
    connection = _connection(page_url)
    try:
        connection.request("GET", urlsplit(page_url).path or "/")
        response = connection.getresponse()
        response.read()
        cookies = [each.partition(";")[0] for each in response.headers.get_all("set-cookie", [])]
    except (OSError, http.client.HTTPException) as error:
        raise ProbeError(f"{page_url} does not answer to the end ({error or type(error).__name__})") from error
    finally:
        connection.close()
    return "; ".join(each for each in cookies if each.startswith("huginn_session="))


def _ask(url: str, cookie: str, *, max_tokens: int, accept: str, clock: Callable[[], float]) -> Answer:
    # A token's id, for who knows what characters a vocabulary has.
    body = json.dumps({"prompt": [0], "max_tokens": max_tokens, "ignore_eos": True}).encode()
    headers = {
        "content-type": "application/json",
        "accept": accept,
        **({"cookie": cookie} if cookie else {}),
    }
    connection = _connection(url)
    pieces, arrivals = [], []
    try:
        started = clock()
        connection.request("POST", urlsplit(url).path, body, headers)
        response = connection.getresponse()
        # As much as is there, and not more than a chunk.
        while piece := response.read1(65536):
            pieces.append(piece)
            arrivals.append(Arrival(clock() - started, len(piece)))
    except (OSError, http.client.HTTPException) as error:
        raise ProbeError(f"{url} does not answer to the end ({error or type(error).__name__})") from error
    finally:
        connection.close()
    return Answer(response.status, b"".join(pieces), tuple(arrivals))


def _connection(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme == "https":
        return http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=READ_TIMEOUT_S, context=ssl.create_default_context()
        )
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=READ_TIMEOUT_S)


def _beginning(body: bytes) -> str:
    return body[:200].decode("utf-8", "replace") or "nothing"


def _ending(body: bytes) -> str:
    return body[-200:].decode("utf-8", "replace") or "nothing"
