"""Reads many streams of stamped tokens at once, and knows of every token how long it was on its way."""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from benchmarks.paced_llm import STAMP_DIGITS, stamp

_STAMP = re.compile(rb'"text":"([0-9]{%d})"' % STAMP_DIGITS)
# Our own API's last event, or OpenAI's.
_DONE = re.compile(rb"event: done\n|data: \[DONE\]")


@dataclass
class StampedStream:
    """One stream, as it was read.

    Args:
        departures: when each token left, in microseconds.
        delays: how long it was on its way, in microseconds.
        failure: why it was not a whole answer, or None.
    """

    departures: list[int] = field(default_factory=list)
    delays: list[int] = field(default_factory=list)
    failure: str | None = None


def steady(streams: Sequence[StampedStream]) -> list[int]:
    """Return the delays of the tokens that left while all streams were running."""
    begun = [stream for stream in streams if stream.departures]
    first = max((stream.departures[0] for stream in begun), default=0)
    last = min((stream.departures[-1] for stream in begun), default=0)
    return [
        delay
        for stream in begun
        for departure, delay in zip(stream.departures, stream.delays, strict=True)
        if first <= departure <= last
    ]


async def read_stamped(
    port: int, requests: Sequence[bytes], tokens: int, *, gap_s: float, within_s: float
) -> list[StampedStream]:
    """Send the requests, one every ``gap_s``; return when all streams have ended, or ``within_s`` later."""
    loop = asyncio.get_running_loop()
    readers: list[_Reader] = []
    for request in requests:
        _, reader = await loop.create_connection(partial(_Reader, loop, request, tokens), "127.0.0.1", port)
        readers.append(reader)
        await asyncio.sleep(gap_s)
    _, late = await asyncio.wait([reader.ended for reader in readers], timeout=within_s)
    for reader in readers:
        if reader.ended in late:
            reader.fail(f"not at its end after {within_s:g} s")
        reader.close()
    return [reader.stream for reader in readers]


def stream_request(path: str, fields: Mapping[str, Any], headers: Mapping[str, str]) -> bytes:
    """Return a request for a stream, as it goes over the wire."""
    content = json.dumps(fields).encode()
    said = {
        "host": "127.0.0.1", "accept": "text/event-stream", "content-type": "application/json",
        "content-length": str(len(content)), "connection": "close", **headers,
    }  # fmt: skip
    lines = "".join(f"{name}: {value}\r\n" for name, value in said.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + content


class _Reader(asyncio.Protocol):
    def __init__(self, loop: asyncio.AbstractEventLoop, request: bytes, tokens: int) -> None:
        self.stream = StampedStream()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._request = request
        self._tokens = tokens
        self._transport: asyncio.Transport | None = None
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = stamp()
        whole, end, self._rest = (self._rest + data).rpartition(b"\n\n")
        if not end:
            return
        for found in _STAMP.findall(whole):
            departure = int(found)
            self.stream.departures.append(departure)
            self.stream.delays.append(now - departure)
        if _DONE.search(whole):
            if len(self.stream.delays) != self._tokens:
                self.fail(f"{len(self.stream.delays)} tokens of {self._tokens}")
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.fail(f"ended without its last event{f': {exc}' if exc else ''}")
        self._end()

    def fail(self, reason: str) -> None:
        self.stream.failure = self.stream.failure or reason

    def close(self) -> None:
        assert self._transport is not None
        self._transport.abort()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
