"""A model service that costs next to nothing: every stream has its tokens at an even pace, and each says when it left.

`python -m benchmarks.paced_llm PORT` answers POST /generate/stream as the llm function would, and everything else with
an empty JSON object. A token's text is the moment of its departure.
"""

import asyncio
import json
import sys
import time
from typing import cast

TOKENS_PER_S = 50
STAMP_DIGITS = 16
# Of the golden ratio: however many streams there are, their tokens leave evenly spread.
_SPREAD = 0.6180339887

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n"
_JSON = _HEAD % b"application/json" + b"content-length: 2\r\n\r\n{}"
_STREAM = _HEAD % b"text/event-stream" + b"transfer-encoding: chunked\r\n\r\n"


def stamp() -> int:
    """Return the time in microseconds, by a clock that all processes of this machine share."""
    return time.monotonic_ns() // 1000


class PacedLLM(asyncio.Protocol):
    """One connection: request after request, each answered at the pace."""

    streams = 0

    def __init__(self, loop: asyncio.AbstractEventLoop, tokens_per_s: float) -> None:
        self._loop = loop
        self._gap_s = 1 / tokens_per_s
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what is written to."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """Stop."""
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer, once a request is there."""
        assert self._transport is not None
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if not end or len(rest) < int(length or 0):
            return
        self._received = b""
        if not head.startswith(b"POST /generate/stream "):
            self._transport.write(_JSON)
            return
        self._transport.write(_STREAM)
        count = json.loads(rest)["max_tokens"]
        PacedLLM.streams += 1
        phase_s = PacedLLM.streams * _SPREAD % 1 * self._gap_s
        now = self._loop.time()
        # Only the next moment of the grid that has the stream's phase: all streams keep their distance.
        self._at(now - now % self._gap_s + self._gap_s + phase_s, 0, count)

    def _at(self, moment: float, index: int, count: int) -> None:
        self._timer = self._loop.call_at(moment, self._say, moment, index, count)

    def _say(self, moment: float, index: int, count: int) -> None:
        assert self._transport is not None
        if index == count:
            usage = f'{{"prompt_tokens":1,"completion_tokens":{count},"total_tokens":{count + 1}}}'
            done = f'event: done\ndata: {{"finish_reason":"length","usage":{usage},"seed":0,"model":"paced"}}\n\n'
            self._transport.write(f"{len(done):x}\r\n{done}\r\n0\r\n\r\n".encode())
            return
        text = f"{stamp():0{STAMP_DIGITS}}"
        frame = f'event: token\ndata: {{"i":{index + 1},"id":7,"text":"{text}"}}\n\n'
        self._transport.write(f"{len(frame):x}\r\n{frame}\r\n".encode())
        self._at(moment + self._gap_s, index + 1, count)


async def serve(port: int, tokens_per_s: float) -> None:
    """Serve on this machine until the task is cancelled."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: PacedLLM(loop, tokens_per_s), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(int(sys.argv[1]), TOKENS_PER_S))
