"""Nobody is waited for without end, and nobody who is answered is hurried."""

import asyncio
import gc
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, ClassVar

import pytest
import uvicorn

from functions.backend import app as backend
from functions.frontend import request_body as frontend
from functions.llm.controllers import request_body as llm
from functions.server import timed_http
from local.tiers import HTTP_PROTOCOL
from tests.undisturbed import undisturbed

# Instead of half a minute; more than a machine that is not disturbed needs between two lines of a test.
WITHIN_S = 1.0
# An end for a test that would hang.
PATIENCE_S = 20.0
GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n"
# More than the kernel keeps for a reader.
LARGE = 96 << 20
OK = b"HTTP/1.1 200 OK\r\n"


async def app(scope, receive, send):
    """Answers at once, whether there is a body or not; /slow takes twice the time that a head has.

    /endless is given up when nobody takes it, as the tiers give up what they write.
    """
    if scope["path"] == "/endless":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with suppress(TimeoutError):
            while True:
                async with asyncio.timeout(WITHIN_S / 4):
                    await send({"type": "http.response.body", "body": bytes(LARGE), "more_body": True})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    if scope["path"] == "/slow":
        await send({"type": "http.response.body", "body": b"o", "more_body": True})
        await asyncio.sleep(2 * WITHIN_S)
        await send({"type": "http.response.body", "body": b"k"})
    else:
        await send({"type": "http.response.body", "body": b"ok"})


class Echo(asyncio.Protocol):
    """Stands for a library of WebSockets."""

    def __init__(self, **_: Any) -> None:
        self.transport: Any = None

    def connection_made(self, transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


@contextmanager
def serving(**options: Any) -> Iterator[tuple[str, int]]:
    """The address of a server as the tiers run it."""
    listener = socket.create_server(("127.0.0.1", 0))
    usual = {"http": HTTP_PROTOCOL, "log_config": None, "lifespan": "off", "ws": "none", "timeout_keep_alive": 60}
    server = uvicorn.Server(uvicorn.Config(app, **{**usual, **options}))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        listener.close()
        assert not thread.is_alive()


def connect(address: tuple[str, int]) -> closing[socket.socket]:
    return closing(socket.create_connection(address, PATIENCE_S))


def read(connection: socket.socket, end: bytes = b"\r\n\r\nok") -> bytes:
    """What comes, up to `end`."""
    read = b""
    while not read.endswith(end):
        chunk = connection.recv(1)
        assert chunk, read
        read += chunk
    return read


def read_to_the_end(connection: socket.socket) -> bytes:
    with connection.makefile("rb") as answer:
        return answer.read()


@pytest.fixture
def soon(monkeypatch):
    """Waits for heads a second."""
    monkeypatch.setattr(timed_http, "HEAD_WITHIN_S", WITHIN_S)


@pytest.mark.parametrize("asked", [b"", GET], ids=["first", "next"])
@pytest.mark.parametrize("begun", [b"G", GET[:-1]])
@undisturbed
def test_who_begins_a_head_is_told_that_it_did_not_come(soon, asked, begun):
    """408, and then the connection is no more."""
    with serving() as address, connect(address) as connection:
        connection.sendall(asked)
        if asked:
            assert read(connection).startswith(OK)
        connection.sendall(begun)
        head, _, body = read_to_the_end(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"\r\nconnection: close" in head
    assert f"\r\ncontent-length: {len(body)}\r\n".encode() in head
    assert b"within 1 s" in body


@pytest.mark.parametrize("sent", [b"", b"\r\n"])
def test_who_asks_nothing_is_told_nothing(soon, sent):
    """The connection is closed, as browsers and proxies expect that open some to have them."""
    with serving() as address, connect(address) as connection:
        connection.sendall(sent)
        assert read_to_the_end(connection) == b""


@pytest.mark.parametrize(
    ("asked", "begun", "drop"),
    [(b"", b"GET /", b"x"), (GET, b"GET /", b"x"), (GET, b"", b"\r\n"), (POST, b"", b"x")],
    ids=["a head", "the next head", "less than a head", "a body that is answered already"],
)
def test_drops_do_not_keep_a_connection(soon, asked, begun, drop):
    """The time is that of the whole: no byte begins it anew."""
    with serving() as address, connect(address) as connection:
        connection.sendall(asked)
        if asked:
            assert read(connection).startswith(OK)
        connection.sendall(begun)
        # Once something is sent to what has been closed.
        with pytest.raises(ConnectionError):
            send_drops(connection, drop)


def send_drops(connection: socket.socket, drop: bytes) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        connection.sendall(drop)
        time.sleep(WITHIN_S / 20)


@undisturbed
def test_an_answer_takes_its_time(soon):
    """Also when the next head has begun meanwhile, which has its own time after the answer."""
    with serving() as address, connect(address) as connection:
        connection.sendall(GET.replace(b"/", b"/slow", 1) + GET[:5])
        assert read(connection).startswith(OK)
        connection.sendall(GET[5:])
        assert read(connection).startswith(OK)


@undisturbed
def test_a_head_in_parts_is_a_head(soon):
    """Once it is whole nobody looks at the clock any more."""
    with serving() as address, connect(address) as connection:
        for path in (b"/", b"/slow"):
            for byte in GET.replace(b"/", path, 1):
                connection.sendall(bytes([byte]))
            assert read(connection).startswith(OK)


@undisturbed
def test_between_requests_the_limit_is_uvicorns(monkeypatch):
    """A connection that waits for its next request has timeout_keep_alive, be it longer or shorter."""
    monkeypatch.setattr(timed_http, "HEAD_WITHIN_S", WITHIN_S)
    with serving(timeout_keep_alive=60) as address, connect(address) as connection:
        for pause_s in (2 * WITHIN_S, 0):
            connection.sendall(GET)
            assert read(connection).startswith(OK)
            time.sleep(pause_s)
    monkeypatch.setattr(timed_http, "HEAD_WITHIN_S", 10 * PATIENCE_S)
    with serving(timeout_keep_alive=1) as address, connect(address) as connection:
        connection.sendall(GET)
        assert read(connection).startswith(OK)
        assert read_to_the_end(connection) == b""


@undisturbed
def test_a_websocket_is_left_alone(soon):
    """It is no longer ours."""
    with serving(ws=Echo) as address, connect(address) as connection:
        upgrade = GET[:-2] + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n"
        connection.sendall(upgrade)
        assert read(connection, b"\r\n\r\n") == upgrade
        time.sleep(2 * WITHIN_S)
        connection.sendall(b"still here")
        assert read(connection, b"here") == b"still here"


@pytest.mark.parametrize("sent", [b"", GET[:-2], GET])
def test_a_stop_waits_for_no_head(sent):
    """A server that stops closes what asks nothing."""
    with serving() as address, connect(address) as connection:
        connection.sendall(sent)
        if sent == GET:
            read(connection)
        # Accepted, since one that came later is answered.
        with connect(address) as other:
            other.sendall(GET)
            read(other)


class Counted(timed_http.TimedHttpProtocol):
    """Knows which of its kind there are."""

    alive: ClassVar[weakref.WeakSet[asyncio.Protocol]] = weakref.WeakSet()

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.alive.add(self)


def test_who_has_gone_is_forgotten():
    """Not only when its time is up."""
    with serving(http=Counted) as address:
        with connect(address) as connection:
            connection.sendall(GET[:5])
        with connect(address) as other:
            other.sendall(GET)
            read(other)
        assert timed_http.HEAD_WITHIN_S > PATIENCE_S
        wait_until_all_are_gone()


def wait_until_all_are_gone() -> None:
    """Fails where they stay."""
    deadline = time.monotonic() + PATIENCE_S
    while Counted.alive:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        gc.collect()


def test_who_takes_nothing_of_what_was_closed_is_dropped(monkeypatch):
    """What is still to be sent, and the connection with it, would be kept for as long as the reader likes."""
    monkeypatch.setattr(timed_http, "TAKEN_WITHIN_S", WITHIN_S / 2)
    with serving(http=Counted) as address, connect(address) as connection:
        connection.sendall(GET.replace(b"/", b"/endless", 1))
        assert read(connection, b"\r\n\r\n").startswith(OK)
        wait_until_all_are_gone()


def test_who_takes_some_of_it_is_waited_for(monkeypatch):
    """However slowly he reads, what was sent before the end arrives."""
    monkeypatch.setattr(timed_http, "TAKEN_WITHIN_S", 2 * WITHIN_S)
    with serving(http=Counted) as address, connect(address) as connection:
        connection.sendall(GET.replace(b"/", b"/endless", 1))
        assert read(connection, b"\r\n\r\n").startswith(OK)
        [protocol] = Counted.alive
        deadline = time.monotonic() + PATIENCE_S
        while not protocol.transport.is_closing():
            assert time.monotonic() < deadline
            time.sleep(WITHIN_S / 20)
        for _ in range(10):
            untaken = protocol.transport.get_write_buffer_size()
            assert untaken
            while protocol.transport.get_write_buffer_size() == untaken:
                assert connection.recv(100_000)
            time.sleep(WITHIN_S / 2)


def test_a_head_has_as_long_as_a_body():
    """In every tier."""
    bodies = {backend.BODY_WITHIN_S, frontend.BODY_WITHIN_S, llm.BODY_WITHIN_S}
    assert {timed_http.HEAD_WITHIN_S} == bodies
