"""What a request says outside its body: for whom it is, and how long it may take."""

import math
import re

from starlette.requests import Request

from functions.llm.controllers.errors import InvalidBodyError

CLIENT = "x-huginn-client"
TIMEOUT = "x-huginn-timeout-s"

# An opaque name, such as a key's id; what may stand in a log line without harm.
_SANE = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")


def client_of(request: Request) -> str:
    """Return the name of the client that the request counts against; all without one are one client."""
    name = request.headers.get(CLIENT, "")
    return name if _SANE.fullmatch(name) else ""


def timeout_of(request: Request, max_seconds: float) -> float:
    """Return how many seconds the request may take: what it allows, or ``max_seconds`` if that is less.

    Raises:
        InvalidBodyError: the header is no number above 0.
    """
    text = request.headers.get(TIMEOUT)
    if text is None:
        return max_seconds
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise InvalidBodyError(
            TIMEOUT, f"The header {TIMEOUT} is {text[:40]!r}; it must be a number of seconds above 0."
        )
    return min(seconds, max_seconds)
