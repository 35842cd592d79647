"""Tokens, and where each begins in the text that is told."""

from collections import deque
from collections.abc import Sequence

from functions.backend.domain.events import Token


class PlacedTokens:
    """Gives the tokens of a text when the text has got to where they begin, with that place, in characters.

    Text is held back while a stop string may be beginning, or a character is not complete; then so are its tokens.
    """

    def __init__(self) -> None:
        self._told = 0
        self._waiting: deque[tuple[Token, int]] = deque()

    def push(self, token: Token) -> Sequence[tuple[Token, int]]:
        """Give the tokens whose first character has been told, now that what this one adds to the text is."""
        offset = token.logprobs.offset if token.logprobs is not None else None
        self._waiting.append((token, self._told if offset is None else offset))
        self._told += len(token.text)
        reached = []
        while self._waiting and self._waiting[0][1] < self._told:
            reached.append(self._waiting.popleft())
        return reached

    def rest(self) -> Sequence[tuple[Token, int]]:
        """Give, when the text is at its end, the tokens that are not in it."""
        rest = list(self._waiting)
        self._waiting.clear()
        return rest
