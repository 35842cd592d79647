"""A connection to a neighbour by HTTP/1.1, for answers that come in many small pieces.

A piece costs a step of the parser and waking who waits for it: no lock, no timer and no task of its own. What has
arrived together is read together. Who reads slowly is waited for: beyond a limit no more is taken from the network.

Nothing here belongs to one function, and none may import another: the frontend and the backend each have a copy.
"""

import asyncio
from typing import cast

import httptools
import httpx

# What is read ahead of a slow reader, before the network is made to wait.
_READ_AHEAD_BYTES = 1 << 16
_MAX_HEAD_BYTES = 1 << 16


class Connection(asyncio.Protocol):
    """One exchange after the other; made by `loop.create_connection`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_since = 0.0
        self._lost = False
        self.idle_since = 0.0
        self._begin()

    def _begin(self) -> None:
        # A parser of its own for each answer: what one left behind cannot harm the next.
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._paused = False
        self._asked = False
        self._has_head = False
        self._has_length = False
        self._complete = False
        self._keep_alive = False
        self._head_bytes = 0
        self._failure: httpx.TransportError | None = None
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.answered = False
        """Whether any byte of an answer has come."""

    @property
    def reusable(self) -> bool:
        """Whether the answer was read to its end, and another may follow."""
        return self._complete and self._keep_alive and not self._lost and self._failure is None

    async def exchange(self, request: bytes, silence_s: float | None) -> None:
        """Send a request, and return when the head of its answer is in `status` and `headers`.

        Args:
            request: all of it.
            silence_s: how long anybody waits here for something to come, now and while the answer is read.

        Raises:
            httpx.TransportError: the answer did not come, or is none.
        """
        self._begin()
        if self._lost or self._transport is None or self._transport.is_closing():
            raise httpx.RemoteProtocolError("the connection is closed")
        self._asked = True
        self._transport.write(request)
        if silence_s is not None:
            self._timer = self._loop.call_later(silence_s, self._look_at_the_clock, silence_s)
        while not self._has_head:
            await self._something()

    async def read(self) -> bytes:
        """Return what has arrived of the body, at least a byte; b"" at its end.

        Raises:
            httpx.TransportError: the body breaks off, or nothing came for too long.
        """
        while not self._pieces:
            if self._complete:
                return b""
            await self._something()
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._buffered = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()  # type: ignore[union-attr]
        return body

    def rest(self) -> None:
        """Wait for the next exchange."""
        self._stop_timer()
        self.idle_since = self._loop.time()

    def abort(self) -> None:
        """Close at once, in whatever state."""
        self._stop_timer()
        if self._transport is not None:
            self._transport.abort()

    async def _something(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._waiter = self._loop.create_future()
        self._waiting_since = self._loop.time()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, failure: httpx.TransportError) -> None:
        self._failure = self._failure or failure
        self._stop_timer()
        self._wake()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_at_the_clock(self, silence_s: float) -> None:
        # One timer for a whole answer: it looks now and then how long somebody has waited already.
        waited = self._loop.time() - self._waiting_since if self._waiter is not None else 0.0
        if waited >= silence_s:
            self._fail(httpx.ReadTimeout(f"nothing came for {silence_s:g} s"))
        else:
            self._timer = self._loop.call_later(silence_s - waited, self._look_at_the_clock, silence_s)

    # What asyncio says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what is written to."""
        # uvloop's are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse what has come, and wake who waits for it."""
        self.answered = True
        if not self._asked or self._complete:
            # Nobody has asked for it; whatever it is, the next answer would be taken for this one.
            self._fail(httpx.RemoteProtocolError("more came than was asked for"))
            self.abort()
            return
        if not self._has_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(httpx.RemoteProtocolError(f"what came is no answer by HTTP/1.1 ({error})"))
            self.abort()
        if not self._has_head and self._head_bytes > _MAX_HEAD_BYTES:
            self._fail(httpx.RemoteProtocolError(f"the head of the answer has more than {_MAX_HEAD_BYTES} bytes"))
            self.abort()
        if self._buffered > _READ_AHEAD_BYTES and not self._paused and not self._complete:
            self._paused = True
            self._transport.pause_reading()  # type: ignore[union-attr]
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits; an answer that says no length ends here."""
        self._lost = True
        if self._has_head and not self._has_length and exc is None:
            self._complete = True
        if not self._complete:
            self._fail(httpx.RemoteProtocolError(f"the connection was closed before the end of the answer ({exc})"))
        self._stop_timer()
        self._wake()

    # What the parser says.

    def on_message_begin(self) -> None:
        """Refuse a second answer: it came in one piece with the first, and its head and body would be mixed up."""
        if self._complete:
            raise httpx.RemoteProtocolError("more came than was asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; what comes after the body is none (RFC 9110, section 6.5.1)."""
        if self._has_head:
            return
        self.headers.append((name, value))
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._has_length = True

    def on_headers_complete(self) -> None:
        """Let the answer begin, unless it is only an interim one."""
        self.status = self._parser.get_status_code()
        self._has_head = self.status >= 200

    def on_body(self, body: bytes) -> None:
        """Keep a piece."""
        self._pieces.append(body)
        self._buffered += len(body)

    def on_message_complete(self) -> None:
        """Let the answer end; after an interim one (RFC 9110, section 15.2) the real one comes."""
        if self._has_head:
            self._complete = True
            self._keep_alive = bool(self._parser.should_keep_alive())
        else:
            self.headers = []
            self._has_length = False
