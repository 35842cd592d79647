"""Stops reading a body that is too large, before it is in memory."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions.backend.domain.errors import InvalidRequest


class BodyTooLarge(InvalidRequest):
    """A body of more bytes than are read here."""

    code = "body_too_large"

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"The body is larger than {max_bytes} bytes. Send a shorter prompt.")


class BodyLimitMiddleware:
    """Lets whoever reads a body meet BodyTooLarge instead of its end; what it announces is believed, then counted."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        received = int(announced) if announced.isdecimal() and int(announced) > self._max_bytes else 0

        async def receive_counted() -> Message:
            nonlocal received
            if received > self._max_bytes:
                raise BodyTooLarge(self._max_bytes)
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self._max_bytes:
                    raise BodyTooLarge(self._max_bytes)
            return message

        await self._app(scope, receive_counted, send)
