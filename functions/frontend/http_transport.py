"""httpx's way to a neighbour that speaks plain HTTP/1.1: a pool of lean connections."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Self

import httpx

from functions.frontend.connection import Connection

_IDLE_CONNECTIONS = 32
# uvicorn closes a connection that was idle for 5 s; one that is reused in that moment would break.
_IDLE_CONNECTION_S = 4.0


class HTTPTransport(httpx.AsyncBaseTransport):
    """Connections to one origin, as many as are needed; a few that are idle are kept for a moment.

    An answer's extension `pieces` iterates over its body without the four generators of httpx's own way.
    """

    def __init__(self) -> None:
        self._idle: list[Connection] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and give its answer when its head is there.

        Raises:
            httpx.TransportError: there is no answer.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # A connection cannot leave the loop that it was opened in.
            self._loop, self._idle = loop, []
        await request.aread()
        timeouts = request.extensions.get("timeout", {})
        while True:
            kept = self._kept()
            connection = kept or await connect(loop, request.url.host, request.url.port or 80, timeouts.get("connect"))
            try:
                await connection.exchange(request_bytes(request), timeouts.get("read"))
            except httpx.RemoteProtocolError:
                connection.abort()
                if kept is None or connection.answered:
                    raise
                # It was closed over there while it was idle here; nobody has read the request.
            except BaseException:
                connection.abort()
                raise
            else:
                body = Body(connection, self._give_back)
                extensions = {"pieces": body}
                return httpx.Response(connection.status, headers=connection.headers, stream=body, extensions=extensions)

    async def aclose(self) -> None:
        """Close what is idle; what is in use closes when it is left."""
        idle, self._idle = self._idle, []
        if self._loop is asyncio.get_running_loop():
            for connection in idle:
                connection.abort()

    def _kept(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            assert self._loop is not None
            if connection.reusable and self._loop.time() - connection.idle_since < _IDLE_CONNECTION_S:
                return connection
            connection.abort()
        return None

    def _give_back(self, connection: Connection) -> None:
        if connection.reusable and len(self._idle) < _IDLE_CONNECTIONS:
            connection.rest()
            self._idle.append(connection)
        else:
            connection.abort()


class Body(httpx.AsyncByteStream, AsyncIterator[bytes]):
    """An answer's body, as it arrives; what has arrived together comes in one piece."""

    def __init__(self, connection: Connection, give_back: Callable[[Connection], None]) -> None:
        self._connection = connection
        self._give_back: Callable[[Connection], None] | None = give_back

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._connection.read()
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """Leave it: before its end, that closes the connection."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back(self._connection)


async def connect(loop: asyncio.AbstractEventLoop, host: str, port: int, within_s: float | None) -> Connection:
    """Give a new connection.

    Raises:
        httpx.ConnectError, httpx.ConnectTimeout: there is none to be had.
    """
    try:
        async with asyncio.timeout(within_s):
            _, connection = await loop.create_connection(lambda: Connection(loop), host, port)
            return connection
    except TimeoutError as error:
        raise httpx.ConnectTimeout(f"{host}:{port} did not accept a connection within {within_s} s") from error
    except OSError as error:
        raise httpx.ConnectError(str(error)) from error


def request_bytes(request: httpx.Request) -> bytes:
    """Give a request as it goes over the wire; its body must have been read."""
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%b: %b" % header for header in request.headers.raw]
    return b"%b\r\n\r\n%b" % (b"\r\n".join(lines), request.content)
