"""The other ends of uvicorn and of functions/runtime, as lean as each other: what is measured is not who listens.

A response is read from the socket as it comes, with the time of every read; only afterwards is it looked into.
"""

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_SENT = re.compile(rb"@(\d{20})@")
_END = b"\r\n0\r\n\r\n"
_ACCEPTED = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
WITHIN_S = 60


@dataclass
class Record:
    """A response by `time.monotonic_ns`: when it was asked for, and every read that brought some of it."""

    asked: int = 0
    reads: list[tuple[int, bytes]] = field(default_factory=list)

    def chunks(self) -> list[tuple[int, int]]:
        """Return of every chunk when it was sent and when it came; one that a read has cut in two came with its end."""
        found: list[tuple[int, int]] = []
        rest = b""
        for came, data in self.reads:
            rest += data
            found += [(int(sent), came) for sent in _SENT.findall(rest)]
            rest = _SENT.sub(b"", rest)[-32:]
        return found


class _Reader(asyncio.Protocol):
    """One connection: reads a chunked message to its end."""

    def __init__(self, record: Record, ended: asyncio.Future[None]) -> None:
        self.record = record
        self.ended = ended
        self.transport: asyncio.Transport | None = None
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.record.reads.append((time.monotonic_ns(), data))
        self._tail = (self._tail + data)[-len(_END) :]
        if self._tail == _END and not self.ended.done():
            self.ended.set_result(None)


async def ask_server(port: int, query: str) -> Record:
    """Return what an HTTP server on this machine answers."""
    loop = asyncio.get_running_loop()
    record, ended = Record(), loop.create_future()
    transport, _ = await loop.create_connection(lambda: _Reader(record, ended), "127.0.0.1", port)
    record.asked = time.monotonic_ns()
    transport.write(f"GET /?{query} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode())
    try:
        await asyncio.wait_for(ended, WITHIN_S)
    finally:
        transport.abort()
    return record


class _RuntimeApi(asyncio.Protocol):
    """One connection of the runtime: asks for work, which waits for a turn, or brings an answer."""

    def __init__(self, function: "Function") -> None:
        self._function = function
        self._reader: _Reader | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        if self._reader is None and data.startswith(b"GET "):
            self._function.waiting.put_nowait(self._transport)
            return
        if self._reader is None:
            self._reader = _Reader(self._function.record, self._function.ended)
        self._reader.data_received(data)
        if self._function.ended.done():
            self._transport.write(_ACCEPTED)


class Function:
    """A process of functions/runtime, asked as Lambda asks it."""

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[asyncio.Transport] = asyncio.Queue()
        self.record = Record()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def ask(self, query: str) -> Record:
        """Return what the runtime answers to an event of a Function URL."""
        transport = await asyncio.wait_for(self.waiting.get(), WITHIN_S)
        self.record, self.ended = Record(), asyncio.get_running_loop().create_future()
        body = json.dumps(
            {
                "version": "2.0",
                "rawPath": "/",
                "rawQueryString": query,
                "headers": {"host": "x.lambda-url.eu-west-1.on.aws"},
                "requestContext": {
                    "domainName": "x.lambda-url.eu-west-1.on.aws",
                    "http": {"method": "GET", "path": "/", "sourceIp": "127.0.0.1"},
                },
                "isBase64Encoded": False,
            }
        ).encode()
        deadline_ms = int(1000 * (time.time() + 900))
        head = (
            f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nlambda-runtime-aws-request-id: 1\r\n"
            f"lambda-runtime-deadline-ms: {deadline_ms}\r\n\r\n"
        )
        self.record.asked = time.monotonic_ns()
        transport.write(head.encode() + body)
        await asyncio.wait_for(self.ended, WITHIN_S)
        return self.record


@asynccontextmanager
async def runtime_function(app: str) -> AsyncIterator[tuple[Function, int]]:
    """Run an app by functions/runtime; give the function and the process id."""
    function = Function()
    server = await asyncio.get_running_loop().create_server(lambda: _RuntimeApi(function), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    environ = {**os.environ, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}"}
    process = subprocess.Popen([sys.executable, "-m", "functions.runtime", app], env=environ)  # noqa: ASYNC220
    try:
        yield function, process.pid
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(process.wait, 10)
        process.kill()
        process.wait()
        server.close()
