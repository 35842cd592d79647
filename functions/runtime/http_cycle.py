"""One request through the app, ended before Lambda would end it."""

import asyncio
import json
import logging
import math
from typing import Any

from functions.runtime.errors import RuntimeFault
from functions.runtime.events import HttpRequest
from functions.runtime.reply import Reply

# The app was told to be done by then, and has half a second of grace; the other half is for the last bytes.
_MARGIN_S = 0.5
# What an app that is cancelled may take to clean up; as long again is left to ask for the next invocation.
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
        self._late_from = math.inf
        # What the app sends from now on is dropped.
        self._over = asyncio.Event()
        self._complete = False
        # The deadline may come in the middle of a message.
        self._sending = asyncio.Lock()
        self._is_event_stream = False
        self._last = b""

    async def run(self, left_s: float) -> None:
        """Return in time, when the response has ended and the app is done; Lambda is told of what went wrong.

        Args:
            left_s: what is left of the function's time.
        """
        end = asyncio.get_running_loop().time() + left_s
        margin_s = min(_MARGIN_S, left_s / 8)
        self._late_from = end - margin_s
        working = asyncio.create_task(self._app(self._request.scope, self._receive, self._send))
        await asyncio.wait({working}, timeout=left_s - margin_s)
        try:
            async with asyncio.timeout_at(end - margin_s / 2):
                await (self._end_with(working) if working.done() else self._end_late())
        except TimeoutError:
            _log.error("The client took the response too slowly: it is cut off, for the function's time is up.")
        finally:
            self._reply.abort()
            working.cancel()
            await asyncio.wait({working}, timeout=min(_CLEAN_UP_S, margin_s / 4))

    async def _receive(self) -> dict[str, Any]:
        if not self._body_given:
            self._body_given = True
            return {"type": "http.request", "body": self._request.body, "more_body": False}
        # Lambda does not tell of a client that leaves.
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if self._over.is_set() or asyncio.get_running_loop().time() >= self._late_from:
            # A loop that does nothing but send would keep everybody else from running.
            await asyncio.sleep(0)
        async with self._sending:
            if not self._over.is_set():
                await self._pass_on(message)

    async def _pass_on(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "http.response.start" if not self._reply.has_started:
                headers = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ())]
                content_type = dict(headers).get(b"content-type", b"")
                self._is_event_stream = content_type.startswith(_EVENT_STREAM)
                await self._reply.start(message["status"], headers)
            case "http.response.body" if self._reply.has_started:
                data = message.get("body", b"")
                self._last = data or self._last
                await self._reply.write(data)
                if not message.get("more_body", False):
                    await self._reply.finish()
                    self._complete = True
                    self._over.set()
            case unexpected:
                raise RuntimeFault("Runtime.UnexpectedMessage", f"The app sent {unexpected} out of turn.")

    async def _end_with(self, working: asyncio.Task[None]) -> None:
        """Say how the app has ended, where its response has not told."""
        error = asyncio.CancelledError() if working.cancelled() else working.exception()
        if error is not None:
            _log.error("The app failed", exc_info=error)
        async with self._sending:
            if self._complete:
                return
            self._over.set()
            await self._reply.fail(
                error
                or RuntimeFault("Runtime.IncompleteResponse", "The app returned before its response was complete.")
            )

    async def _end_late(self) -> None:
        """End a response whose app did not end it in time: never without a word."""
        self._over.set()
        async with self._sending:
            if self._complete:
                _log.error("The app was still at work after its response when the function's time was up.")
                return
            _log.error("The app did not end its response before the function's time was up.")
            if not self._reply.has_started:
                await self._reply.start(504, [(b"content-type", b"application/json")])
                await self._reply.write(json.dumps({"error": {**_LATE, "field": None}}).encode())
                await self._reply.finish()
                return
            if self._is_event_stream:
                # An event that was cut in the middle is no part of this one.
                gap = b"" if not self._last or self._last.endswith((b"\n\n", b"\r\n\r\n")) else b"\n\n"
                await self._reply.write(gap + b"event: error\ndata: %b\n\n" % json.dumps(_LATE).encode())
            await self._reply.fail(RuntimeFault("Runtime.DeadlineExceeded", str(_LATE["message"])))
