"""Reads text/event-stream as it arrives, cut anywhere (https://html.spec.whatwg.org/multipage/server-sent-events.html).

`id` and `retry` are skipped: nobody here reconnects. Bytes that are not UTF-8 are an error instead of a replacement
character, for a wrong text is worse than none.
"""

from collections.abc import Iterator
from typing import NamedTuple

# A token event with 20 alternatives is some 2 kB; what is larger than this is no event of ours.
MAX_EVENT_BYTES = 1 << 20


class EventStreamError(ValueError):
    """The bytes are not an event stream we can read."""


class Frame(NamedTuple):
    """One event as it stands in the stream."""

    event: str
    data: str


class EventStreamParser:
    """Turns chunks into frames. How the stream was cut never changes the frames."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._line = bytearray()  # the part of a line that has arrived
        self._after_cr = False  # a line feed that comes next belongs to this carriage return
        self._at_start = True
        self._event = ""
        self._data: list[str] = []
        self._data_bytes = 0

    def push(self, chunk: bytes) -> Iterator[Frame]:
        """Give the frames that this chunk completes.

        Raises:
            EventStreamError: an event is too large, or not UTF-8.
        """
        if not chunk:
            return
        if not (self._line or self._event or self._data or self._after_cr) and len(chunk) <= self._max_event_bytes:
            frames = _usual_frames(chunk)
            if frames is not None:
                self._at_start = False
                yield from frames
                return
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")
        self._after_cr = chunk.endswith(b"\r")
        for piece in chunk.splitlines(keepends=True):
            content = piece.rstrip(b"\r\n")
            self._grow(content)
            if content != piece:
                frame = self._end_line()
                if frame:
                    yield frame

    def _grow(self, content: bytes) -> None:
        self._line += content
        if len(self._line) + self._data_bytes > self._max_event_bytes:
            raise EventStreamError(f"an event of more than {self._max_event_bytes} bytes")

    def _end_line(self) -> Frame | None:
        try:
            line = self._line.decode()
        except UnicodeDecodeError as error:
            raise EventStreamError(f"an event is not UTF-8: {error}") from error
        length = len(self._line)
        self._line.clear()
        if self._at_start:
            line = line.removeprefix("\ufeff")
            self._at_start = False
        if not line:
            return self._end_event()
        # A comment, ":" first, has an empty name, and so is skipped like every unknown field.
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._event = value
        elif name == "data":
            self._data.append(value)
            self._data_bytes += length
        return None

    def _end_event(self) -> Frame | None:
        frame = Frame(self._event or "message", "\n".join(self._data)) if self._data else None
        self._event, self._data, self._data_bytes = "", [], 0
        return frame


def _usual_frames(chunk: bytes) -> list[Frame] | None:
    """Give the frames of whole events in the form that the model service writes; None for anything else.

    Nearly every chunk is such a one, and this way it costs a third.
    """
    if not chunk.endswith(b"\n\n") or b"\r" in chunk:
        return None
    try:
        text = chunk.decode()
    except UnicodeDecodeError:
        return None
    frames = []
    for event in text[:-2].split("\n\n"):
        first, _, second = event.partition("\n")
        kind, data = first[7:], second[6:]
        if not (kind and first.startswith("event: ") and second.startswith("data: ")) or "\n" in data:
            return None
        frames.append(Frame(kind, data))
    return frames
