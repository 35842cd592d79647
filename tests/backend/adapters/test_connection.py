"""A lean HTTP/1.1 connection against a peer on a real socket that sends what it is told."""

import asyncio
import socket
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from functions.backend.adapters.connection import Connection
from tests.undisturbed import undisturbed

FUNCTIONS = Path(__file__).parents[3] / "functions"
ASK = b"GET / HTTP/1.1\r\nhost: there\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nx: 1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nth\r\n3\r\ne r\r\n0\r\n\r\n"


@asynccontextmanager
async def connected(talk):
    """A connection to a peer that does what `talk(reader, writer)` says, once asked."""

    async def serve(reader, writer):
        try:
            await reader.readuntil(b"\r\n\r\n")
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    loop = asyncio.get_running_loop()
    async with asyncio.timeout(15):
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        _, connection = await loop.create_connection(lambda: Connection(loop), "127.0.0.1", port)
        try:
            yield connection
        finally:
            connection.abort()
            server.close()
            await server.wait_closed()


def says(*pieces, stays=False):
    async def talk(reader, writer):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.001)
        if stays:
            await reader.read()

    return talk


async def whole(connection):
    body = b""
    while piece := await connection.read():
        body += piece
    return body


async def answer_of(connection):
    await connection.exchange(ASK, 10)
    return await whole(connection)


def test_how_the_answer_is_cut_never_changes_it():
    """At any byte: head and body are the same, and what comes behind the body is no header."""
    trailed = CHUNKED.removesuffix(b"\r\n") + b"x-trail: 1\r\nset-cookie: a=b\r\n\r\n"

    async def run():
        for said, cut in [(one, cut) for one in (CHUNKED, trailed) for cut in range(0, len(one), 3)]:
            async with connected(says(said[:cut], said[cut:], stays=True)) as connection:
                await connection.exchange(ASK, 10)
                assert await whole(connection) == b"the r"
                assert connection.status == 200
                assert connection.headers == [(b"x", b"1"), (b"transfer-encoding", b"chunked")]
                assert connection.reusable

    asyncio.run(run())


def test_what_has_arrived_together_is_read_together():
    """Pieces that came while nobody read are one."""

    async def run():
        async with connected(says(CHUNKED, stays=True)) as connection:
            await connection.exchange(ASK, 10)
            assert await connection.read() == b"the r"
            assert await connection.read() == b""

    asyncio.run(run())


@pytest.mark.parametrize(
    ("said", "body", "reusable"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", b"ok", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok", b"ok", False),
        (b"HTTP/1.0 200 OK\r\n\r\nto the end", b"to the end", False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    ],
    ids=["interim", "closing", "no length", "no body"],
)
def test_every_kind_of_end_is_an_end(said, body, reusable):
    """By length, by chunks, by closing, or because there is none."""

    async def run():
        async with connected(says(said, stays=reusable)) as connection:
            await connection.exchange(ASK, 10)
            assert await whole(connection) == body
            assert connection.reusable == reusable

    asyncio.run(run())


@pytest.mark.parametrize(
    "said",
    [
        b"220 smtp.example.org ESMTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\nnonsense",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000,
        b"",
    ],
    ids=["another protocol", "too short", "bad chunk", "endless head", "nothing"],
)
def test_what_is_no_answer_is_said_to_be_none(said):
    """Half an answer never passes for a whole one."""

    async def run():
        async with connected(says(said)) as connection:
            with pytest.raises(httpx.RemoteProtocolError):
                await answer_of(connection)
            assert not connection.reusable

    asyncio.run(run())


@pytest.mark.parametrize(
    "head", [b"content-length: 2\r\n\r\nok", b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"]
)
@pytest.mark.parametrize(
    "more", [b"HTTP/1.1 500 No\r\ncontent-length: 3\r\n\r\nbad", b"bad"], ids=["answer", "nonsense"]
)
def test_more_than_was_asked_for_is_taken_for_no_part_of_an_answer(head, more):
    """Wherever it is cut: the answer stands as it is, and the connection is of no more use."""
    one = b"HTTP/1.1 200 OK\r\n" + head
    both = one + more

    async def run():
        for cut in [0, *range(len(one) - 2, len(both))]:
            async with connected(says(both[:cut], both[cut:], stays=True)) as connection:
                await connection.exchange(ASK, 10)
                assert await whole(connection) == b"ok"
                assert (connection.status, len(connection.headers)) == (200, 1)
                while connection.reusable:  # noqa: ASYNC110 - until the other piece is here, which nobody tells
                    await asyncio.sleep(0.001)
                with pytest.raises(httpx.RemoteProtocolError):
                    await connection.exchange(ASK, 10)

    asyncio.run(run())


def test_a_slow_reader_makes_the_network_wait():
    """What is read ahead is bounded: the peer gets rid of no more than the system's buffers hold."""
    total, written = 24 << 20, []

    async def talk(reader, writer):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        for _ in range(total >> 20):
            writer.write(b"x" * (1 << 20))
            await writer.drain()
            written.append(1 << 20)

    async def run():
        async with connected(talk) as connection:
            await connection.exchange(ASK, 10)
            before = -1
            while before != len(written):
                before = len(written)
                await asyncio.sleep(0.1)
            assert sum(written) < total / 2
            assert 0 < len(await connection.read()) < 1 << 20

    asyncio.run(run())


@undisturbed
def test_silence_is_counted_while_somebody_waits():
    """A reader's own pauses are not the peer's."""

    async def run():
        async with connected(says(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok", stays=True)) as connection:
            await connection.exchange(ASK, 0.1)
            await asyncio.sleep(0.3)
            assert await connection.read() == b"ok"
            with pytest.raises(httpx.ReadTimeout):
                await connection.read()

    asyncio.run(run())


def test_both_copies_are_one():
    """The functions share no code, and what holds for the one file holds for the other."""
    assert (FUNCTIONS / "frontend/connection.py").read_text() == (
        FUNCTIONS / "backend/adapters/connection.py"
    ).read_text()
