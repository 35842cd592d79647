"""Many event streams read at once by one lean client: what is measured is the server, not who listens.

A stream is read from the socket as it comes; nothing is parsed but how many token events have arrived and whether the
end was one that the wire allows.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MAX_STREAMS = 1024
TOKEN, DONE = b"event: token\n", b"event: done\n"


@dataclass
class StreamRecord:
    """When one stream's tokens came, by `time.perf_counter`.

    Args:
        sent: when the request was written, on a connection that stood already.
        arrivals: time, and how many tokens came at it, for every read that brought any.
        failure: why it was not a whole answer, or None.
    """

    sent: float
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    failure: str | None = None

    @property
    def tokens(self) -> int:
        """How many came."""
        return sum(count for _, count in self.arrivals)


def read_streams(port: int, path: str, bodies: Sequence[Mapping[str, Any]], within_s: float) -> list[StreamRecord]:
    """Send the requests at the same time, each on its own connection to this machine; return when all have ended.

    What has not ended after ``within_s`` is a failure.
    """
    assert len(bodies) <= MAX_STREAMS, f"{len(bodies)} streams are more than {MAX_STREAMS}"
    return asyncio.run(_read_streams(port, [_request(path, body) for body in bodies], within_s))


async def _read_streams(port: int, requests: Sequence[bytes], within_s: float) -> list[StreamRecord]:
    loop = asyncio.get_running_loop()
    streams = [(await loop.create_connection(lambda: _Stream(loop), "127.0.0.1", port))[1] for _ in requests]
    for stream, request in zip(streams, requests, strict=True):
        stream.send(request)
    _, late = await asyncio.wait([stream.ended for stream in streams], timeout=within_s)
    for stream in streams:
        if stream.ended in late:
            stream.fail(f"not at its end after {within_s:g} s")
        stream.close()
    return [stream.record for stream in streams]


def _request(path: str, body: Mapping[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: text/event-stream\r\ncontent-type: application/json\r\n"
        f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + content


class _Stream(asyncio.Protocol):
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.record = StreamRecord(0.0)
        self.ended: asyncio.Future[None] = loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._tail = b""  # the end of what came before: an event's name may be cut in two
        self._first_line = self._begun = b""
        self._done = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, request: bytes) -> None:
        assert self._transport is not None
        self.record.sent = time.perf_counter()
        self._transport.write(request)

    def close(self) -> None:
        assert self._transport is not None
        self._transport.abort()

    def fail(self, reason: str) -> None:
        self.record.failure = self.record.failure or reason

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if not self._begun:
            self._first_line += data
            line, self._begun, _ = self._first_line.partition(b"\r\n")
            if self._begun and not line.startswith(b"HTTP/1.1 200 "):
                self.fail(line.decode("latin-1"))
        data = self._tail + data
        count = data.count(TOKEN)
        if count:
            self.record.arrivals.append((now, count))
        self._done = self._done or DONE in data
        # Less than a name, so that none is counted twice.
        self._tail = data[-(len(TOKEN) - 1) :]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done:
            self.fail(f"ended without its last event{f': {exc}' if exc else ''}")
        if not self.ended.done():
            self.ended.set_result(None)
