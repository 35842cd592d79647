"""The load's client counts every token once, at the time it came, and knows a whole answer from one that is cut."""

import itertools
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from benchmarks.sse_client import read_streams
from tests.undisturbed import undisturbed

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
TOKEN = b'event: token\ndata: {"i":6,"id":1,"text":" My"}\n\n'
DONE = b'event: done\ndata: {"finish_reason":"length"}\n\n'


@contextmanager
def answering(pieces: Sequence[bytes], pause_s: float = 0.0, *, hang: bool = False) -> Iterator[int]:
    """Serve one connection: read its request, send the pieces with pauses between them, and close."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.recv(65536)
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause_s)
            if hang:
                released.wait(10)

    released = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        released.set()
        thread.join(timeout=10)


@pytest.mark.parametrize("size", [1, 3, 12, 13, 1000])
def test_tokens_are_counted_however_the_stream_is_cut(size):
    """An event's name may come in two reads, and is one token all the same."""
    body = HEAD + TOKEN * 5 + DONE
    with answering([body[start : start + size] for start in range(0, len(body), size)], pause_s=0.0005) as port:
        (record,) = read_streams(port, "/", [{}], within_s=10)
    assert record.failure is None
    assert record.tokens == 5


@undisturbed
def test_a_chunk_has_one_time():
    """Tokens that come together arrive together, and those after a pause do not."""
    with answering([HEAD + TOKEN, TOKEN * 4, TOKEN * 2 + DONE], pause_s=0.3) as port:
        (record,) = read_streams(port, "/", [{}], within_s=10)
    times, counts = zip(*record.arrivals, strict=True)
    assert counts == (1, 4, 2)
    assert times[0] > record.sent
    assert all(0.1 < later - earlier < 2 for earlier, later in itertools.pairwise(times))


@pytest.mark.parametrize(
    ("pieces", "failure"),
    [
        ([b"HTTP/1.1 503 Service Unavailable\r\n\r\n"], "HTTP/1.1 503 Service Unavailable"),
        ([HEAD + TOKEN], "ended without its last event"),
        ([HEAD + TOKEN + b'event: error\ndata: {"code":"internal"}\n\n'], "ended without its last event"),
        ([], "ended without its last event"),
    ],
)
def test_what_is_not_a_whole_answer_is_a_failure(pieces, failure):
    """A refusal, a connection that closes too soon, an error event."""
    with answering(pieces) as port:
        (record,) = read_streams(port, "/", [{}], within_s=10)
    assert record.failure is not None
    assert record.failure.startswith(failure)


@undisturbed
def test_a_stream_that_never_ends_is_given_up():
    """The load is bounded in time, and what had come counts."""
    with answering([HEAD + TOKEN], hang=True) as port:
        (record,) = read_streams(port, "/", [{}], within_s=0.3)
    assert record.failure == "not at its end after 0.3 s"
    assert record.tokens == 1
