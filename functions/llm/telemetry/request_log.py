"""One line in the log for every request, when it is over, and its span in the trace where somebody wants it."""

import logging
import time
from collections.abc import Awaitable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions.llm.telemetry.current import CurrentRequest, begin_request
from functions.llm.telemetry.trace_context import TraceContext

if TYPE_CHECKING:
    from functions.llm.telemetry.spans import Spans

# Asked every few seconds, all day: their lines are for those who look for them.
_PROBES = frozenset({"/livez", "/readyz", "/status", "/api/status"})
_MAX_PATH = 200
_CLIENT_LEFT = 499

logger = logging.getLogger(__name__)


class RequestLog:
    """Stands just inside of what names the requests; what is noted within is told in the line.

    The span's context is in `scope["state"]["trace"]`.
    """

    def __init__(self, app: ASGIApp, spans: "Spans | None" = None) -> None:
        self._app, self._spans = app, spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = CurrentRequest(scope["state"]["request_id"], TraceContext.from_headers(scope["headers"]))
        span = None
        if self._spans is not None and scope["path"] not in _PROBES:
            span = self._spans.begin(request.trace, scope)
            request.trace = replace(request.trace, sampled=span.get_span_context().trace_flags.sampled)
        scope["state"]["trace"] = request.trace
        # Left set at the end: what the server says of a failed request is then said of this one.
        begin_request(request)
        arrived, begun, status, complete = time.perf_counter(), 0.0, 0, False

        def watch(message: Message) -> Awaitable[None]:
            # No coroutine of its own: every chunk comes by here.
            nonlocal status, begun, complete
            if message["type"] == "http.response.start":
                status, begun = message["status"], time.perf_counter()
            elif not message.get("more_body", False):
                complete = True
            return send(message)

        error: Exception | None = None
        try:
            await self._app(scope, receive, watch)
        except Exception as failure:
            error = failure
            raise
        finally:
            fields: dict[str, Any] = {
                "event": "request",
                "method": scope["method"],
                "path": scope["path"][:_MAX_PATH],
                # Without an answer of ours the server makes one, or nobody is there any more: nginx's number.
                "status": status or (_CLIENT_LEFT if error is None else 500),
                "duration_ms": _milliseconds(time.perf_counter() - arrived),
                **({"first_byte_ms": _milliseconds(begun - arrived)} if begun else {}),
                **request.fields,
            }
            if not complete:
                fields["complete"] = False
            if error is not None:
                # By the code that every tier has for it; the traceback beside it tells the rest.
                fields.setdefault("error", "internal")
            is_probe = scope["path"] in _PROBES and fields["status"] < 400
            logger.log(logging.DEBUG if is_probe else logging.INFO, "request", extra={"fields": fields})
            if self._spans is not None and span is not None:
                await self._spans.end(span, request, fields, scope)


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 1)
