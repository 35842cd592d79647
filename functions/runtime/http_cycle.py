"""One request through the app, ended before Lambda would end it."""

import asyncio
import json
import logging
from typing import Any

from functions.runtime.errors import RuntimeFault
from functions.runtime.events import HttpRequest
from functions.runtime.reply import Reply

# The app was told to be done by then, and has half a second of grace; the other half is for the last bytes.
_MARGIN_S = 0.5
# What an app that is cancelled may take to clean up.
_CLEAN_UP_S = 0.1

_EVENT_STREAM = b"text/event-stream"
_LATE = {
    "code": "deadline_exceeded",
    "message": "The function's time was up before the answer was complete.",
    "retryable": True,
}

_log = logging.getLogger(__name__)


class HttpCycle:
    """Runs an ASGI app for one request; its response goes to ``reply``."""

    def __init__(self, app: Any, request: HttpRequest, reply: Reply) -> None:
        self._app = app
        self._request = request
        self._reply = reply
        self._body_given = False
        self._over = asyncio.Event()
        self._started = False
        self._is_event_stream = False
        self._last = b""

    async def run(self, left_s: float) -> None:
        """Return when the response has ended and the app is done; Lambda is told of what went wrong.

        Args:
            left_s: what is left of the function's time.
        """
        working = asyncio.create_task(self._app(self._request.scope, self._receive, self._send))
        await asyncio.wait({working}, timeout=left_s - min(_MARGIN_S, left_s / 8))
        if not working.done():
            if self._over.is_set():
                _log.error("The app was still at work after its response when the function's time was up.")
            else:
                await self._end_late()
            working.cancel()
            await asyncio.wait({working}, timeout=_CLEAN_UP_S)
            return
        error = asyncio.CancelledError() if working.cancelled() else working.exception()
        if error is not None:
            _log.error("The app failed", exc_info=error)
        if not self._over.is_set():
            self._over.set()
            error = error or RuntimeFault(
                "Runtime.IncompleteResponse", "The app returned before its response was complete."
            )
            await self._reply.fail(error)

    async def _receive(self) -> dict[str, Any]:
        if not self._body_given:
            self._body_given = True
            return {"type": "http.request", "body": self._request.body, "more_body": False}
        # Lambda does not tell of a client that leaves.
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if self._over.is_set():
            return
        match message["type"]:
            case "http.response.start":
                headers = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ())]
                content_type = dict(headers).get(b"content-type", b"")
                self._is_event_stream = content_type.startswith(_EVENT_STREAM)
                self._started = True
                await self._reply.start(message["status"], headers)
            case "http.response.body" if self._started:
                data = message.get("body", b"")
                self._last = data or self._last
                await self._reply.write(data)
                if not message.get("more_body", False):
                    await self._reply.finish()
                    self._over.set()
            case unexpected:
                raise RuntimeFault("Runtime.UnexpectedMessage", f"The app sent {unexpected} out of turn.")

    async def _end_late(self) -> None:
        """End a response whose app did not end it in time: never without a word."""
        self._over.set()
        _log.error("The app did not end its response before the function's time was up.")
        if not self._started:
            await self._reply.start(504, [(b"content-type", b"application/json")])
            await self._reply.write(json.dumps({"error": {**_LATE, "field": None}}).encode())
            await self._reply.finish()
            return
        if self._is_event_stream:
            # An event that was cut in the middle is no part of this one.
            gap = b"" if not self._last or self._last.endswith((b"\n\n", b"\r\n\r\n")) else b"\n\n"
            await self._reply.write(gap + b"event: error\ndata: %b\n\n" % json.dumps(_LATE).encode())
        await self._reply.fail(RuntimeFault("Runtime.DeadlineExceeded", str(_LATE["message"])))
