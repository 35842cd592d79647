"""A list as JSON, written while its elements come."""

import json
from collections.abc import Sequence

# Made once: json.dumps with options makes an encoder at every call.
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class WrittenList:
    """Writes a list element by element, and keeps no more than its JSON.

    A long list that is written at once, on the event loop or in a thread, lets nobody else run until it is done; and
    its elements take some four times the memory that their JSON does.
    """

    def __init__(self) -> None:
        self._written = bytearray()

    def add(self, *elements: object) -> None:
        """Write these after those that were written; for some hundreds at a time."""
        if elements:
            self._written += b"," if self._written else b"["
            self._written += _to_json(elements)[1:-1].encode()

    def pieces(self) -> Sequence[bytes | bytearray]:
        """Give the JSON in pieces; nothing can be added to a list that is told."""
        return (self._written, b"]") if self._written else (b"[]",)
