"""Gives every request a name that stands in its answer and in every log it leaves."""

import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "x-request-id"
# What is safe to write into a log line and a header.
_SANE = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")


class RequestIdMiddleware:
    """Takes the client's x-request-id where it is sane, makes one where not, and returns it on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _SANE.fullmatch(given) else str(uuid.uuid4())
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        await self._app(scope, receive, send_named)


def request_id_of(scope: Scope) -> str:
    """Give the name of the request that this scope belongs to."""
    request_id: str = scope["state"]["request_id"]
    return request_id
