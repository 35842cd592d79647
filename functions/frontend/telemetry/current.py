"""The request that the running code works for, known to all that runs within it without being passed along."""

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from functions.frontend.telemetry.trace_context import TraceContext

_current: ContextVar["CurrentRequest | None"] = ContextVar("huginn_request", default=None)


@dataclass(slots=True)
class CurrentRequest:
    """A request while it is answered.

    Args:
        id: the name that it has in all tiers.
        trace: its span in this one.
        fields: what its line in the log will tell besides.
        moments: what happened in it, by name, in nanoseconds since 1970.
    """

    id: str
    trace: TraceContext
    fields: dict[str, Any] = field(default_factory=dict)
    moments: list[tuple[str, int]] = field(default_factory=list)


def begin_request(request: CurrentRequest) -> None:
    """Make it the request that this task, and every task made within it, works for."""
    _current.set(request)


def current_request() -> CurrentRequest | None:
    """Give the request that is being answered; None outside of all."""
    return _current.get()


def trace_headers() -> dict[str, str]:
    """Give the headers that tell another tier of the request's trace; none outside of a request."""
    request = _current.get()
    return {} if request is None else request.trace.to_headers()


def note(**fields: Any) -> None:
    """Have the request's line in the log tell these: numbers, names and codes, and never anybody's text."""
    request = _current.get()
    if request is not None:
        request.fields.update(fields)


def note_error(code: str) -> None:
    """Have the request's line tell the code of the error that it ends with; the first one counts."""
    request = _current.get()
    if request is not None:
        request.fields.setdefault("error", code)


def note_moment(name: str, time_ns: int) -> None:
    """Have the request's span tell of something that happened in it."""
    request = _current.get()
    if request is not None:
        request.moments.append((name, time_ns))
