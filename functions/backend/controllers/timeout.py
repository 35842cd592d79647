"""How long a request may take."""

import math

from starlette.requests import Request

from functions.backend.domain.errors import InvalidRequest

HEADER = "x-huginn-timeout-s"


def timeout_of(request: Request) -> float | None:
    """Give how many seconds the request may take; None where it does not say.

    Raises:
        InvalidRequest: what it says is no number above 0.
    """
    text = request.headers.get(HEADER)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise InvalidRequest(
            f"The header {HEADER} is {text[:40]!r}; it must be a number of seconds above 0.", field=HEADER
        )
    return seconds
