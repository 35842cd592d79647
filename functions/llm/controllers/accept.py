"""Which form of a stream the client wants."""

from collections.abc import Iterator

from functions.llm.controllers.errors import NotAcceptableError
from functions.llm.controllers.event_stream import EventStream
from functions.llm.controllers.plain_text import PlainText

StreamForm = EventStream | PlainText

# The default comes first.
_FORMS: dict[str, StreamForm] = {"text/plain": PlainText(), "text/event-stream": EventStream()}


def accepted_form(accept: str) -> StreamForm:
    """Return the form that the Accept header prefers, plain text if it does not care (RFC 9110, section 12.5.1)."""
    if not accept.strip():
        return _FORMS["text/plain"]
    ranges = list(_ranges(accept))
    ranked = sorted(_FORMS, key=lambda media_type: _preference(media_type, ranges), reverse=True)
    if _preference(ranked[0], ranges)[0] == 0:
        raise NotAcceptableError(
            f"The stream is text/plain or text/event-stream, and the Accept header ({accept[:100]}) allows neither."
        )
    return _FORMS[ranked[0]]


def _preference(media_type: str, ranges: list[tuple[str, float]]) -> tuple[float, int]:
    """Return the quality that the most specific matching range gives, and how specific that is: 0 is not at all."""
    kinds = ["*/*", media_type.partition("/")[0] + "/*", media_type]
    matches = [(kinds.index(name), quality) for name, quality in ranges if name in kinds]
    specificity, quality = max(matches, default=(0, 0.0))
    return quality, specificity


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        quality = next((value[2:] for value in parameters if value.startswith("q=")), "1")
        try:
            yield name, min(max(float(quality), 0.0), 1.0)
        except ValueError:
            yield name, 0.0
