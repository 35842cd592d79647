"""HTTP/1.1 as both sides of Lambda need it: bodies read and written chunk by chunk, requests kept as they came."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus

MAX_HEAD_BYTES = 1 << 20

Headers = list[tuple[str, str]]


class BadRequestError(Exception):
    """What came is not HTTP/1.1 as the specification has it; the message says what."""


@dataclass
class Request:
    """A request whose body may still be on its way.

    Args:
        method: GET, POST, ...
        target: path and query, as on the wire.
        headers: as on the wire, in order.
        wire: every byte of it that has been read so far.
        trailers: filled when a chunked body has ended.
    """

    method: str
    target: str
    headers: Headers
    wire: bytearray
    _reader: asyncio.StreamReader
    trailers: dict[str, str] = field(default_factory=dict)
    _ended: bool = False

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    def header(self, name: str, default: str = "") -> str:
        """Give a header's value, the values of several joined by commas."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ",".join(values) if values else default

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give the body as it comes, each chunk of a chunked one by itself."""
        if self._ended:
            return
        if self.header("transfer-encoding").lower() == "chunked":
            while size := int((await self._line()).partition(b";")[0], 16):
                data = await self._exactly(size)
                if await self._exactly(2) != b"\r\n":
                    raise BadRequestError("a chunk is longer than it says")
                yield data
            while line := await self._line():
                name, _, value = line.decode("latin-1").partition(":")
                self.trailers[name.lower()] = value.strip()
        elif length := int(self.header("content-length", "0")):
            yield await self._exactly(length)
        self._ended = True

    async def body(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])

    async def _line(self) -> bytes:
        line = await self._reader.readuntil(b"\r\n")
        self.wire += line
        return line[:-2]

    async def _exactly(self, count: int) -> bytes:
        data = await self._reader.readexactly(count)
        self.wire += data
        return data


class Response:
    """Where the answer to one request goes; a client that has left is not noticed here, as on AWS."""

    def __init__(self, writer: asyncio.StreamWriter, method: str) -> None:
        self._writer = writer
        self._bodiless = method == "HEAD"
        self.begun = False

    def whole(self, status: int, body: bytes, headers: Headers | None = None) -> None:
        """Send an answer of known length."""
        self._head(status, [*(headers or []), ("content-length", str(len(body)))])
        if not self._bodiless:
            self._writer.write(body)

    def json(self, status: int, content: object, headers: Headers | None = None) -> None:
        self.whole(status, json.dumps(content).encode(), [("content-type", "application/json"), *(headers or [])])

    def begin(self, status: int, headers: Headers) -> None:
        """Send the head of an answer whose body comes in chunks."""
        self._bodiless = self._bodiless or status in {204, 304}
        self._head(status, headers if self._bodiless else [*headers, ("transfer-encoding", "chunked")])

    async def chunk(self, data: bytes) -> None:
        if data and not self._bodiless:
            self._writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            with contextlib.suppress(ConnectionError):
                await self._writer.drain()

    def end(self) -> None:
        if not self._bodiless:
            self._writer.write(b"0\r\n\r\n")

    def cut(self) -> None:
        """Close the connection in the middle of the body."""
        self._writer.close()

    def _head(self, status: int, headers: Headers) -> None:
        self.begun = True
        phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
        lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers), "", ""]
        self._writer.write("\r\n".join(lines).encode("latin-1"))


Handler = Callable[[Request, Response], Awaitable[None]]


class HttpServer:
    """Hands ``handle`` every request that comes to ``host`` and ``port``, by default a free port of the loopback."""

    def __init__(self, handle: Handler, host: str = "127.0.0.1", port: int = 0) -> None:
        self._handle = handle
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listen, and give the port."""
        self._server = await asyncio.start_server(self._connected, self._host, self._port, limit=MAX_HEAD_BYTES)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while not writer.is_closing() and (request := await _read_head(reader)):
                response = Response(writer, request.method)
                await self._handle(request, response)
                async for _ in request.chunks():
                    pass  # what nobody wanted
                await writer.drain()
                if request.header("connection").lower() == "close":
                    break
        except (BadRequestError, ValueError) as error:
            writer.write(f"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nx-reason: {error}\r\n\r\n".encode())
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other side has left, or this one is to stop
        finally:
            self._connections.discard(task)
            writer.close()


async def _read_head(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    method, target, _version = first.split(" ")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    return Request(method, target, headers, bytearray(head), reader)
