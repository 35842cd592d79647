"""What an event asks for: an HTTP request, or only a sign of life."""

from dataclasses import dataclass
from typing import Any, cast

from mangum import Mangum
from mangum.types import ASGI, LambdaHandler

from functions.runtime.context import LambdaContext
from functions.runtime.errors import RuntimeFault
from functions.runtime.settings import Settings
from functions.runtime.tracing import traceparent

# What is left between the app's end and the function's, for the last bytes to get out.
_APP_MARGIN_S = 1.0

_WARMERS = frozenset({"aws.events", "aws.scheduler", "serverless-plugin-warmup"})
_WARM_KEYS = frozenset({"ping", "warmer", "warmup"})

Scope = dict[str, Any]


@dataclass(frozen=True)
class HttpRequest:
    """A request, and how it is answered.

    Args:
        scope: ASGI's.
        body: all of it.
        streams: whether the answer may come in chunks.
        mangum: turns an answer in one piece into what the event's source expects.
    """

    scope: Scope
    body: bytes
    streams: bool
    mangum: LambdaHandler


def is_ping(event: object) -> bool:
    """Say whether an event only wants the function to be warm: a schedule's, or `{"ping": true}`."""
    if not event:
        return True
    if not isinstance(event, dict) or "requestContext" in event:
        return False
    return event.get("source") in _WARMERS or any(event.get(key) for key in _WARM_KEYS)


def read_request(event: Any, context: LambdaContext, trace_id: str, settings: Settings) -> HttpRequest:
    """Give the request that an event of a Function URL, an HTTP API, a REST API or a load balancer stands for.

    A header tells the app how many seconds it has; an earlier end that the client asks for in it stays.

    Raises:
        RuntimeFault: it is none of them.
    """
    try:
        # Mangum would also run the app, in a loop of its own; only its reading of events is wanted.
        handler = Mangum(cast("ASGI", None), lifespan="off").infer(event, cast("Any", context))
        scope, body = dict(handler.scope), handler.body
    except (RuntimeError, KeyError, TypeError, AttributeError, ValueError) as error:
        found = ", ".join(sorted(event)) if isinstance(event, dict) else type(event).__name__
        raise RuntimeFault(
            "Runtime.UnknownEvent",
            f"The event is no HTTP request that Mangum reads ({error!r}); it has: {found}.",
        ) from error
    scope["headers"] = _headers(scope["headers"], context, trace_id, settings.timeout_header.encode())
    mode = settings.response_mode
    streams = mode == "streaming" or (mode == "auto" and _can_stream(event))
    return HttpRequest(scope, body, streams, handler)


def _can_stream(event: dict[str, Any]) -> bool:
    # An HTTP API's event is a Function URL's but for the domain; the others are of another version.
    return event.get("version") == "2.0" and ".execute-api." not in event["requestContext"].get("domainName", "")


def _headers(
    given: list[list[bytes]], context: LambdaContext, trace_id: str, timeout_header: bytes
) -> list[tuple[bytes, bytes]]:
    headers = [(bytes(name), bytes(value)) for name, value in given]
    known = dict(headers)
    ours: dict[bytes, bytes] = {}
    left_s = context.get_remaining_time_in_millis() / 1000
    # Of a function whose time is short, a quarter of it.
    timeout_s = max(0.001, left_s - min(_APP_MARGIN_S, left_s / 4))
    if not _seconds(known.get(timeout_header)) <= timeout_s:
        ours[timeout_header] = f"{timeout_s:.3f}".encode()
    if trace_id:
        ours[b"x-amzn-trace-id"] = trace_id.encode()
        # A caller's own trace is not torn apart.
        if b"traceparent" not in known and (parent := traceparent(trace_id)):
            ours[b"traceparent"] = parent.encode()
    return [*(pair for pair in headers if pair[0] not in ours), *ours.items()]


def _seconds(value: bytes | None) -> float:
    try:
        return float(value) if value is not None else float("inf")
    except ValueError:
        return 0.0  # the app's to refuse
