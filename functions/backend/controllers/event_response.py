"""Sends a generation's events as they happen, as text or as an event stream."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from functions.backend.controllers.disconnect import unless_client_leaves
from functions.backend.controllers.traffic import note_error
from functions.backend.controllers.wire import write_event
from functions.backend.domain.errors import BackendError
from functions.backend.domain.events import Event, StreamError, Token
from functions.backend.telemetry.cut_off import CutOffError

PLAIN = "text/plain"
EVENT_STREAM = "text/event-stream"


class EventResponse(Response):
    """An answer that begins when the first event is there; a generation that cannot begin is another answer's matter.

    Args:
        events: entered and left here; what entering raises travels on, and nothing has been sent then; what is raised
            later is the last event.
        form: PLAIN or EVENT_STREAM.
    """

    def __init__(self, events: AbstractAsyncContextManager[AsyncIterator[Event]], form: str) -> None:
        super().__init__()
        self._events = events
        self._write = _WRITERS[form]
        del self.headers["content-length"]
        self.headers.update(
            {
                "content-type": f"{form}; charset=utf-8",
                "cache-control": "no-store",
                "vary": "accept",
                # Browsers hold text/plain back to guess its type, proxies to fill a buffer; neither would be a stream.
                "x-content-type-options": "nosniff",
                "x-accel-buffering": "no",
            }
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything, or stop the generation when the client leaves.

        Raises:
            LLMError: nothing was generated and nothing sent.
            CutOffError: a plain text is not complete.
        """
        with suppress(ClientDisconnect):
            await unless_client_leaves(receive, self._send(scope, send))

    async def _send(self, scope: Scope, send: Send) -> None:
        has_begun = False
        try:
            async with self._events as events:
                has_begun = True
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                async for event in events:
                    await self._tell(event, scope, send)
        except BackendError as error:
            if not has_begun:
                raise
            await self._tell(StreamError(error.code, error.message, error.retryable), scope, send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _tell(self, event: Event, scope: Scope, send: Send) -> None:
        if isinstance(event, StreamError):
            note_error(scope, event.code)
        body = self._write(event)
        if body:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        if isinstance(event, StreamError) and self._write is _write_plain:
            raise CutOffError(event.message)


def _write_plain(event: Event) -> bytes:
    match event:
        case Token():
            return event.text.encode()
        case StreamError():
            return f"\n[huginn error] {event.message}\n".encode()
        case _:
            return b""


_WRITERS: Mapping[str, Callable[[Event], bytes]] = {PLAIN: _write_plain, EVENT_STREAM: write_event}
