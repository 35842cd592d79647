"""httpx's way to a model service that speaks plain HTTP/1.1 at one address or at several, over lean connections."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Self

import httpx

from functions.backend.adapters.addresses import Address, Addresses
from functions.backend.adapters.connection import Connection

_IDLE_CONNECTIONS = 32
# uvicorn closes a connection that was idle for 5 s; one that is reused in that moment would break.
_IDLE_CONNECTION_S = 4.0
# Another instance may have room, may be ready, may have the model.
_TRY_ANOTHER = frozenset({404, 503})


class HTTPTransport(httpx.AsyncBaseTransport):
    """Sends each request to the least busy address; what fails before its answer has begun is tried at another.

    A request's extension `address` sends it there and nowhere else. An answer's extension `pieces` iterates over its
    body without the four generators that httpx's own way leads through.
    """

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._idle: dict[Address, list[Connection]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and give an answer when its head is there.

        Raises:
            httpx.TransportError: nobody answered.
        """
        await request.aread()
        only: Address | None = request.extensions.get("address")
        tried: set[Address] = set()
        try:
            address = only or await self._addresses.best()
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error
        failure: httpx.TransportError = httpx.ConnectError("the name leads to no address")
        refusal: httpx.Response | None = None
        # However this ends, a refusal that nobody will read gives back its connection and its place.
        async with AsyncExitStack() as refused:
            while address is not None:
                tried.add(address)
                try:
                    answer = await self._ask(address, request)
                except (httpx.ConnectError, httpx.ConnectTimeout, httpx.RemoteProtocolError) as error:
                    failure = error
                    self._addresses.failed(address)
                except httpx.ReadTimeout:
                    # It has the request, and may be about to answer: another one would do the work twice.
                    self._addresses.failed(address)
                    raise
                else:
                    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
                        self._addresses.full(address)
                    else:
                        self._addresses.answered(address)
                    if only or answer.status_code not in _TRY_ANOTHER:
                        return answer
                    await refused.aclose()
                    refused.push_async_callback(answer.aclose)
                    refusal = answer
                address = None if only else await self._addresses.best(tried)
            if refusal is not None:
                refused.pop_all()
                return refusal
        raise failure

    async def aclose(self) -> None:
        """Close what is idle; what is in use closes when it is left."""
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.abort()

    async def _ask(self, address: Address, request: httpx.Request) -> httpx.Response:
        timeouts = request.extensions.get("timeout", {})
        self._addresses.opened(address)
        try:
            connection = await self._exchange(address, request, timeouts.get("connect"), timeouts.get("read"))
        except BaseException:
            self._addresses.closed(address)
            raise
        body = _Body(connection, lambda: self._give_back(address, connection), lambda: self._addresses.failed(address))
        return httpx.Response(connection.status, headers=connection.headers, stream=body, extensions={"pieces": body})

    async def _exchange(
        self, address: Address, request: httpx.Request, connect_s: float | None, silence_s: float | None
    ) -> Connection:
        while True:
            kept = self._kept(address)
            connection = kept or await _connect(address, connect_s)
            try:
                await connection.exchange(_on_the_wire(request), silence_s)
            except httpx.RemoteProtocolError:
                connection.abort()
                if kept is None or connection.answered:
                    raise
                # It was closed over there while it was idle here; nobody has read the request.
            except BaseException:
                connection.abort()
                raise
            else:
                return connection

    def _kept(self, address: Address) -> Connection | None:
        idle, now = self._idle.get(address, []), asyncio.get_running_loop().time()
        while idle:
            connection = idle.pop()
            if connection.reusable and now - connection.idle_since < _IDLE_CONNECTION_S:
                return connection
            connection.abort()
        return None

    def _give_back(self, address: Address, connection: Connection) -> None:
        self._addresses.closed(address)
        idle = self._idle.setdefault(address, [])
        if connection.reusable and len(idle) < _IDLE_CONNECTIONS:
            connection.rest()
            idle.append(connection)
        else:
            connection.abort()


class _Body(httpx.AsyncByteStream, AsyncIterator[bytes]):
    """An answer's body, as it arrives; what has arrived together comes in one piece."""

    def __init__(self, connection: Connection, leave: Callable[[], None], fail: Callable[[], None]) -> None:
        self._connection = connection
        self._fail = fail
        self._leave: Callable[[], None] | None = leave

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await self._connection.read()
        except httpx.TransportError:
            self._fail()
            raise
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """Leave it: before its end, that closes the connection."""
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()


async def _connect(address: Address, within_s: float | None) -> Connection:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(within_s):
            _, connection = await loop.create_connection(lambda: Connection(loop), address.host, address.port)
            return connection
    except TimeoutError as error:
        raise httpx.ConnectTimeout(f"{address.host} accepted no connection within {within_s} s") from error
    except OSError as error:
        raise httpx.ConnectError(str(error)) from error


def _on_the_wire(request: httpx.Request) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%b: %b" % header for header in request.headers.raw]
    return b"%b\r\n\r\n%b" % (b"\r\n".join(lines), request.content)
