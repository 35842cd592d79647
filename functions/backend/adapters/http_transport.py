"""httpx's way to a model service that speaks plain HTTP/1.1 at one address or at several, over lean connections."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
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

    A request under which two connections broke is sent to no third: perhaps it is what breaks them.

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
        sending = _Sending(_on_the_wire(request))
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
                    answer = await self._ask(address, sending, request.extensions.get("timeout", {}))
                except (httpx.ConnectError, httpx.ConnectTimeout, httpx.RemoteProtocolError) as error:
                    failure = error
                    self._addresses.failed(address)
                    if sending.is_suspect:
                        break
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

    async def _ask(self, address: Address, sending: "_Sending", timeouts: Mapping[str, float | None]) -> httpx.Response:
        self._addresses.opened(address)
        try:
            connection = await self._exchange(address, sending, timeouts.get("connect"), timeouts.get("read"))
        except BaseException:
            self._addresses.closed(address)
            raise
        body = _Body(connection, lambda: self._give_back(address, connection), lambda: self._addresses.failed(address))
        return httpx.Response(connection.status, headers=connection.headers, stream=body, extensions={"pieces": body})

    async def _exchange(
        self, address: Address, sending: "_Sending", connect_s: float | None, silence_s: float | None
    ) -> Connection:
        while True:
            kept = None if sending.losses else self._kept(address)
            connection = kept or await _connect(address, connect_s)
            try:
                await connection.exchange(sending.wire, silence_s)
            except httpx.RemoteProtocolError:
                connection.abort()
                sending.losses += 1
                if kept is None or connection.answered or sending.is_suspect:
                    raise
                # Mostly it was closed over there while it was idle here, and nobody has read the request.
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


@dataclass
class _Sending:
    """A request on its way, and how many connections broke under it."""

    wire: bytes
    losses: int = 0

    @property
    def is_suspect(self) -> bool:
        """Whether it may be what breaks those who read it; sent on, it would fell one instance after the other."""
        return self.losses > 1


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
