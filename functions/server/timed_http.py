"""HTTP as uvicorn speaks it, except that nobody is waited for without end."""

import asyncio

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

# As long as the tiers wait for a body.
HEAD_WITHIN_S = 30.0
# As long as the tiers wait for a reader, who may have gone without a word.
TAKEN_WITHIN_S = 30.0


class TimedHttpProtocol(HttpToolsProtocol):
    """Closes a connection when nothing is answered on it and no request's head is whole within HEAD_WITHIN_S.

    That time begins with the connection, and then with the first byte after an answer; no other byte begins it anew.
    Between the two is uvicorn's own limit, timeout_keep_alive, which any byte ends.

    A connection that is closed stays while it holds what was not taken; it is dropped when of that nothing was taken
    for TAKEN_WITHIN_S, or twice that at the most.
    """

    _timer: asyncio.TimerHandle | None = None
    _looking: asyncio.TimerHandle
    _untaken: int | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD_WITHIN_S, self._give_up)
        self._looking = self.loop.call_later(TAKEN_WITHIN_S, self._look)

    def data_received(self, data: bytes) -> None:
        """Read on; wait for a head while there is nothing to answer."""
        super().data_received(data)
        if self.cycle and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._timer is None:
            self._timer = self.loop.call_later(HEAD_WITHIN_S, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop_waiting()
        self._looking.cancel()
        super().connection_lost(exc)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        # Not among them is one that has become a WebSocket.
        if self.transport.is_closing() or self not in self.connections:
            return
        # A scope begins with a head, and becomes a cycle's when that is whole. Who has asked nothing is told nothing.
        if self.scope is not (self.cycle.scope if self.cycle else None):
            text = b"The request's head was not here within %g s. Send it at once." % HEAD_WITHIN_S
            headers = [
                *self.server_state.default_headers,
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", b"%d" % len(text)),
                (b"connection", b"close"),
            ]
            self.transport.write(STATUS_LINE[408] + b"".join(b"%b: %b\r\n" % each for each in headers) + b"\r\n" + text)
        self.transport.close()

    def _look(self) -> None:
        if self not in self.connections:
            return  # as above
        if self.transport.is_closing():
            untaken = self.transport.get_write_buffer_size()
            if untaken == self._untaken:
                self.transport.abort()
                return
            self._untaken = untaken
        self._looking = self.loop.call_later(TAKEN_WITHIN_S, self._look)
