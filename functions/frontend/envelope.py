"""What every response carries, whatever it is: a request id, the headers of security, and words if all else failed."""

import logging
import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions.frontend.errors import ErrorBody, error_response
from functions.frontend.traffic import note_error

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

SECURITY_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

# As the other tiers have it; safe in a line of a log and in a header.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")

_log = logging.getLogger("huginn.frontend")


class Envelope:
    """Middleware in plain ASGI, because Starlette's own kind would stand between a stream and its client.

    The request id, the client's or a new one, is in `scope["state"]["request_id"]` for whoever passes it on.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Stand in front of `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app; an exception before its response becomes a 500 in words, one within it breaks it off."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        offered = Headers(scope=scope).get("x-request-id", "")
        request_id = offered if _REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers.setdefault("x-request-id", request_id)
                headers.setdefault("cache-control", "no-store")
                headers.update(SECURITY_HEADERS)
                if message["status"] == 408:
                    headers["connection"] = "close"  # the rest of the request is not waited for either
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            note_error(scope, "internal")
            if started:
                raise  # the server closes the connection, so that the client knows that the answer is not whole
            _log.exception("request %s failed", request_id)
            message = f"The page's server failed. Try again; its log has the reason under request id {request_id}."
            response = error_response(500, ErrorBody("internal", message, retryable=True))
            await response(scope, receive, send_with_headers)
