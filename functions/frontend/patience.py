"""A reader who takes nothing is waited for, and not for ever."""

import asyncio
import json
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions.frontend.telemetry.cut_off import CutOffError
from functions.frontend.traffic import note_error

_CODE = "slow_reader"
_ERROR = {
    "code": _CODE,
    "message": "The answer was given up, because nobody took it for too long. Read faster, or ask for fewer tokens.",
    "retryable": True,
}
_LAST_EVENT = f"event: error\ndata: {json.dumps(_ERROR)}\n\n".encode()


class SlowReader(Exception):  # noqa: N818
    """Nobody took what was sent for too long. Raised where it is sent, so that what makes more of it ends."""


class Patience:
    """Ends an answer of which nothing was taken for `patience_s`; what had been begun for it ends at once.

    An event stream has an error event as its last, for whoever reads on after all, and is waited for once more. Every
    other answer that has begun is cut off. What is kept for a reader meanwhile is what the server buffers: it takes no
    more while that is full, and so does everybody behind it.
    """

    def __init__(self, app: ASGIApp, patience_s: float) -> None:
        """Stand in front of `app`."""
        self._app = app
        self._patience_s = patience_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        reader = _Reader(send, self._patience_s)
        try:
            await self._app(scope, receive, reader.send)
        except SlowReader:
            note_error(scope, _CODE)
            if not reader.reads_events:
                raise CutOffError(_ERROR["message"]) from None
            with suppress(TimeoutError):
                async with asyncio.timeout(self._patience_s):
                    await send({"type": "http.response.body", "body": _LAST_EVENT, "more_body": False})
        finally:
            reader.close()


class _Reader:
    """One answer's reader: knows since when it has taken nothing. One timer serves all of its chunks."""

    def __init__(self, send: Send, patience_s: float) -> None:
        self._send = send
        self._patience_s = patience_s
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(patience_s, self._look)
        self._sending: asyncio.Task[object] | None = None
        self._cancels = 0
        self._since = 0.0
        self._slow = asyncio.Event()
        self._is_stream = False
        self._last = b"\n\n"

    @property
    def reads_events(self) -> bool:
        """Whether another event can follow what was sent."""
        return self._is_stream and self._last.endswith(b"\n\n")

    def close(self) -> None:
        """Look no longer."""
        self._timer.cancel()

    async def send(self, message: Message) -> None:
        """Send a message.

        Raises:
            SlowReader: it could not be sent, and nothing can be any more.
        """
        if self._slow.is_set():
            raise SlowReader
        # Without the loop it would be looked for, at the price of a system call for every chunk.
        task = self._sending = asyncio.current_task(self._loop)
        assert task is not None
        self._since, self._cancels = self._loop.time(), task.cancelling()
        try:
            await self._send(message)
        except asyncio.CancelledError:
            # Who was also cancelled by somebody else stays cancelled.
            if self._slow.is_set() and task.uncancel() <= self._cancels:
                raise SlowReader from None
            raise
        finally:
            self._sending = None
        if message["type"] == "http.response.start":
            content_type = dict(message.get("headers", ())).get(b"content-type", b"")
            self._is_stream = content_type.startswith(b"text/event-stream")
        else:
            self._last = message.get("body") or self._last

    def _look(self) -> None:
        waited_s = self._loop.time() - self._since if self._sending is not None else 0.0
        if self._sending is not None and waited_s >= self._patience_s:
            self._slow.set()
            self._sending.cancel()
        else:
            self._timer = self._loop.call_later(self._patience_s - waited_s, self._look)
