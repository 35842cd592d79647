"""The page's password: compared without telling how near a guess was, and not guessed fast.

Processes know nothing of each other: as many as answer, so many times as fast is the guessing, and on AWS Lambda each
guess that waits calls for another instance. What keeps the door is the password's length (settings.py); the pause only
slows one process down. Who floods the door keeps out those who have yet to come in, and none who have a session.
"""

import asyncio
import hashlib
import hmac

from functions.frontend.errors import ErrorBody, RefusedError

# Two guesses a second of one process, for all who try together.
PAUSE_S = 0.5
MOST_WAITING = 20


class Password:
    """Takes one guess at a time. A wrong one keeps the door for a moment, and those behind it wait."""

    def __init__(self, password: str, pause_s: float = PAUSE_S) -> None:
        """Keep a digest: of equal length for all, so that the comparison tells nothing of the length."""
        self._digest = _digest(password)
        self._pause_s = pause_s
        self._door = asyncio.Lock()
        self._waiting = 0

    async def check(self, guess: str) -> None:
        """Return if it is the password.

        Raises:
            RefusedError: it is not, or too many others are trying.
        """
        if self._waiting >= MOST_WAITING:
            message = "Too many are trying passwords at the moment."
            raise RefusedError(429, ErrorBody("too_many_guesses", message, retryable=True, retry_after_s=10))
        self._waiting += 1
        try:
            async with self._door:
                if not hmac.compare_digest(_digest(guess), self._digest):
                    await asyncio.sleep(self._pause_s)
                    raise RefusedError(401, ErrorBody("wrong_password", "This is not the page's password."))
        finally:
            self._waiting -= 1


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
