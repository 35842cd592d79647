"""What the server cancels, because it stops, still ends with words: never a silent end."""

import asyncio
import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions.llm.telemetry.current import note_error
from functions.llm.telemetry.cut_off import CutOffError

_CODE = "not_ready"
_ERROR = {
    "code": _CODE,
    "message": "The service is stopping. Send the request again: another instance, or this one restarted, will answer.",
    "retryable": True,
}
_RETRY_AFTER_S = b"5"


class LastWords:
    """Ends what is cancelled: an event stream with an error event, what has not begun with a 503.

    Servers cancel what still runs when the time to stop is up. An answer of another kind that has begun is cut off,
    which is how its reader learns of it; so is an event that was being written.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, ended, streams_events, last = False, False, False, b"\n\n"

        async def watched_send(message: Message) -> None:
            nonlocal begun, ended, streams_events, last
            if message["type"] == "http.response.start":
                begun = True
                content_type = dict(message.get("headers", ())).get(b"content-type", b"")
                streams_events = content_type.startswith(b"text/event-stream")
            else:
                last = message.get("body") or last
                ended = not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except asyncio.CancelledError:
            if ended:
                raise
            note_error(_CODE)
            if begun and streams_events and last.endswith(b"\n\n"):
                await send({"type": "http.response.body", "body": b"event: error\ndata: %b\n\n" % _json(_ERROR)})
            elif not begun:
                body = _json({"error": {**_ERROR, "field": None}})
                headers = [(b"content-type", b"application/json"), (b"retry-after", _RETRY_AFTER_S)]
                await send({"type": "http.response.start", "status": 503, "headers": headers})
                await send({"type": "http.response.body", "body": body})
            else:
                raise CutOffError(_ERROR["message"]) from None


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
