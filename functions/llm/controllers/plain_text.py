"""Events as the text alone."""

from collections.abc import Iterable

from functions.llm.controllers.errors import Problem
from functions.llm.inference.generation import Event, Token


class PlainText:
    """The tokens' texts joined; after an error the body stays without its end, so no client takes it for whole."""

    media_type = "text/plain; charset=utf-8"
    error_ends_the_body = False

    def encode(self, events: Iterable[Event]) -> bytes:
        """Return the text of ``events``."""
        return "".join(event.text for event in events if isinstance(event, Token)).encode()

    def encode_error(self, problem: Problem) -> bytes:
        """Return the last line of a text that was cut off."""
        return f"\n[huginn error] {problem.message}\n".encode()
