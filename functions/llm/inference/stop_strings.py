"""Stop strings in a text that arrives in pieces."""

from collections.abc import Sequence


class StopMatcher:
    """Passes text on up to the first occurrence of a stop string, and holds back what may be the beginning of one.

    Law: pushes and flush joined are the whole text cut where the earliest occurrence of any stop string begins, in
    whatever pieces the text came.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._searches = [_Search(stop) for stop in stops]
        self._held: list[str] = []
        self._found: int | None = None  # where in the held text the earliest occurrence begins
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Whether the text has ended at a stop string; nothing comes out afterwards."""
        return self._stopped

    def push(self, text: str) -> str:
        """Return what is certain to lie before every stop string."""
        if not self._searches:
            return text
        out: list[str] = []
        for char in text:
            if self._stopped:
                break
            out.append(self._push_char(char))
        return "".join(out)

    def flush(self) -> str:
        """Return what the end of the text frees."""
        if self._stopped:
            return ""
        self._stopped = self._found is not None
        return self._release(len(self._held) if self._found is None else self._found)

    def _push_char(self, char: str) -> str:
        self._held.append(char)
        end = len(self._held)
        for search in self._searches:
            if search.advance(char):
                start = end - len(search.pattern)
                self._found = start if self._found is None else min(self._found, start)
        # A longer stop string that began before the one found may still be completed, and would begin the earlier cut.
        undecided = end - max(search.matched for search in self._searches)
        if self._found is not None and self._found <= undecided:
            self._stopped = True
            return self._release(self._found)
        return self._release(undecided)

    def _release(self, count: int) -> str:
        released = "".join(self._held[:count])
        del self._held[:count]
        if self._found is not None:
            self._found -= count
        return released


class _Search:
    """Knuth, Morris and Pratt's automaton: linear in the text for any pattern a client may send."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.matched = 0
        """How many characters at the end of the text are the beginning of the pattern, at most one less than all."""
        self._fallback = [0]
        length = 0
        for char in pattern[1:]:
            length = self._extend(length, char)
            self._fallback.append(length)

    def advance(self, char: str) -> bool:
        """Read a character of the text; return whether the pattern ends with it."""
        self.matched = self._extend(self.matched, char)
        if self.matched < len(self.pattern):
            return False
        # Whatever of the pattern comes now begins later than this, and the earliest is all that counts.
        self.matched = 0
        return True

    def _extend(self, length: int, char: str) -> int:
        while length and self.pattern[length] != char:
            length = self._fallback[length - 1]
        return length + 1 if self.pattern[length] == char else 0
