"""The page's API on the page's own origin: requests go to the backend, answers come back chunk by chunk."""

from collections.abc import Iterable
from contextlib import suppress

from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from functions.frontend.backend_client import BackendClient, BackendError
from functions.frontend.disconnect import unless_client_leaves
from functions.frontend.entrance import COOKIE, cookie_of
from functions.frontend.errors import error_response
from functions.frontend.request_body import read_body
from functions.frontend.telemetry.cut_off import CutOffError
from functions.frontend.traffic import note_error

# What the other side needs to read the message. Everything else belongs to one hop, or is nobody's business.
REQUEST_HEADERS = ("accept", "content-type", "authorization", "x-huginn-timeout-s")
RESPONSE_HEADERS = (
    "content-type", "content-length", "retry-after", "x-request-id", "cache-control", "vary", "allow",
    "www-authenticate",
    "x-accel-buffering",  # is for every proxy on the way to the reader: a stream that is held back is none
)  # fmt: skip

_TEXT_CUT_OFF = "text_cut_off"

_END_OF_EVENT = b"\n\n"
# No event of ours is so large; whatever it is, it is not held back.
_MAX_HELD_BYTES = 1 << 20


def build_relay(backend: BackendClient) -> APIRouter:
    """The routes that are the backend's."""
    router = APIRouter()

    @router.post("/api/llm/stream")
    @router.post("/api/llm/generate")
    async def relay_generation(request: Request) -> Response:
        return RelayedResponse(backend, request, await read_body(request))

    @router.get("/api/llm/models")
    async def relay_models(request: Request) -> Response:
        return RelayedResponse(backend, request, None)

    return router


class RelayedResponse(Response):
    """The backend's answer to `request`, passed on as it comes.

    The request to the backend is made here and not in the route, so that a client who leaves ends it at any moment:
    while the backend is still silent, and between two chunks.
    """

    def __init__(self, backend: BackendClient, request: Request, body: bytes | None) -> None:
        """Keep what is to be sent; `__call__` sends it."""
        super().__init__()
        self._backend = backend
        self._request = request
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Relay until the backend ends or the client leaves.

        Raises:
            CutOffError: the backend broke off within its answer.
        """
        with suppress(ClientDisconnect):
            await unless_client_leaves(receive, self._relay(scope, receive, send))

    async def _relay(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = self._request
        headers = _chosen(request.headers.items(), REQUEST_HEADERS)
        headers["x-request-id"] = request.state.request_id
        # That one alone: what else a browser keeps for this host is not the API's.
        if session := cookie_of(request):
            headers["cookie"] = f"{COOKIE}={session}"
        started, is_text = False, False
        try:
            async with self._backend.stream(request.method, request.url.path, headers, self._body) as answer:
                kept = _chosen(answer.headers.items(), RESPONSE_HEADERS)
                raw_headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in kept.items()]
                started, is_text = True, kept.get("content-type", "").startswith("text/plain")
                await send({"type": "http.response.start", "status": answer.status_code, "headers": raw_headers})
                held = b"" if kept.get("content-type", "").startswith("text/event-stream") else None
                async for chunk in answer.extensions.get("pieces") or answer.aiter_raw():
                    if held is not None and (held or not chunk.endswith(_END_OF_EVENT)):
                        chunk, held = _whole_events(held + chunk)  # noqa: PLW2901
                    if chunk:
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
                if held:
                    await send({"type": "http.response.body", "body": held, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except BackendError as failed:
            # A text can end in an error only by breaking off, and of that the backend has counted the reason.
            note_error(scope, _TEXT_CUT_OFF if is_text and failed.status == 502 else failed.error.code)
            if started:
                raise CutOffError(failed.error.message) from failed
            await error_response(failed.status, failed.error)(scope, receive, send)


def _whole_events(body: bytes) -> tuple[bytes, bytes]:
    """The events that are there, and the beginning of the next: a stream that must be ended is ended between two."""
    if len(body) > _MAX_HELD_BYTES:
        return body, b""
    whole, end, rest = body.rpartition(_END_OF_EVENT)
    return whole + end, rest


def _chosen(headers: Iterable[tuple[str, str]], names: tuple[str, ...]) -> dict[str, str]:
    lowered = ((name.lower(), value) for name, value in headers)
    return {name: value for name, value in lowered if name in names or name.startswith("x-ratelimit-")}
