"""What form a request has and what form its answer may have (RFC 9110, sections 8.3 and 12.5.1)."""

import re
from collections.abc import Sequence

from functions.backend.domain.errors import InvalidRequest

_QUALITY = re.compile(r"[01](\.[0-9]{0,3})?")


class UnsupportedMediaType(InvalidRequest):
    """A body that says it is not JSON."""

    code = "unsupported_media_type"


class NotAcceptable(InvalidRequest):
    """An Accept header that allows nothing we can send."""

    code = "not_acceptable"


def expect_json(content_type: str | None) -> None:
    """Let pass what is said to be JSON.

    Anything else is refused, a body of no type too: these are what a browser sends to us in the name of another site's
    page without asking first.

    Raises:
        UnsupportedMediaType: says how to send JSON.
    """
    found = (content_type or "").partition(";")[0].strip().lower()
    if found != "application/json":
        raise UnsupportedMediaType(
            f"The body is {found[:80] or 'of no type'}. Send JSON with the header content-type: application/json."
        )


def negotiate(accept: str | None, offers: Sequence[str]) -> str:
    """Give the offer that an Accept header likes best, the earlier of equals.

    Raises:
        NotAcceptable: the header allows none of them.
    """
    if accept is None or not accept.strip():
        return offers[0]
    ranges = [_media_range(part) for part in accept.split(",") if part.strip()]
    best = max(offers, key=lambda offer: _quality(offer, ranges))
    if _quality(best, ranges) == 0:
        raise NotAcceptable(
            f"The answer is {' or '.join(offers)}, and the Accept header allows neither. Name one of them."
        )
    return best


def _media_range(part: str) -> tuple[str, float]:
    """Give a range such as text/* and its q; one we cannot read is 0. Other parameters make no difference here."""
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        key, _, value = (piece.strip() for piece in parameter.partition("="))
        if key == "q":
            return name, min(float(value), 1.0) if _QUALITY.fullmatch(value) else 0.0
    return name, 1.0


def _quality(offer: str, ranges: Sequence[tuple[str, float]]) -> float:
    """Give the q of the most specific range that covers the offer."""
    for pattern in (offer, offer.partition("/")[0] + "/*", "*/*"):
        qualities = [quality for name, quality in ranges if name == pattern]
        if qualities:
            return max(qualities)
    return 0.0
