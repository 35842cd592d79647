"""Stops reading a body that is too large, before it is in memory, and one that does not come."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions.backend.domain.errors import BackendError, InvalidRequest


class BodyTooLarge(InvalidRequest):
    """A body of more bytes than are read here."""

    code = "body_too_large"

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"The body is larger than {max_bytes} bytes. Send a shorter prompt.")


class BodyTooSlow(BackendError):  # noqa: N818
    """A body that is not here in time."""

    code = "request_timeout"
    retryable = True

    def __init__(self, within_s: float) -> None:
        super().__init__(f"The body was not here within {within_s:g} s. Send it at once.")


class BodyLimitMiddleware:
    """Lets whoever reads a body meet BodyTooLarge, or BodyTooSlow, instead of its end.

    What a body announces is believed, then counted; its time begins with the request.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, within_s: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._within_s = within_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        received = int(announced) if announced.isdecimal() and int(announced) > self._max_bytes else 0

        deadline: float | None = asyncio.get_running_loop().time() + self._within_s

        async def receive_counted() -> Message:
            nonlocal received, deadline
            if received > self._max_bytes:
                raise BodyTooLarge(self._max_bytes)
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise BodyTooSlow(self._within_s) from None
            if message["type"] == "http.request":
                if not message.get("more_body", False):
                    deadline = None  # all is here: what is waited for now is that the client leaves
                received += len(message.get("body", b""))
                if received > self._max_bytes:
                    raise BodyTooLarge(self._max_bytes)
            return message

        await self._app(scope, receive_counted, send)
