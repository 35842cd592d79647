"""The end of a request's time, whatever the model service does."""

import asyncio
import math
from types import TracebackType

from functions.backend.domain.errors import LLMTimeout

# The model service knows the same limit, and says better why it was not done; its word may still be on its way.
GRACE_S = 0.25


def shorter(timeout_s: float | None, max_seconds: float) -> float | None:
    """Give the time that a request has: what it asks for, within what any may have; None is no limit."""
    seconds = max_seconds if timeout_s is None else min(timeout_s, max_seconds)
    return None if seconds == math.inf else seconds


class Deadline:
    """The end of a request's time, which all that is done for it shares; without seconds there is none."""

    def __init__(self, timeout_s: float | None = None) -> None:
        self._until = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s

    def left(self) -> float | None:
        """Give how many seconds are left; None is no limit.

        Raises:
            LLMTimeout: none are.
        """
        if self._until is None:
            return None
        seconds = self._until - asyncio.get_running_loop().time()
        if seconds <= 0:
            raise _too_late()
        return seconds


class TimeLimit:
    """A point in time up to which events are waited for, `with` it around every wait; without seconds there is none.

    One timer serves all waits, for there is one for every event: whoever makes a limit closes it.

    Raises:
        LLMTimeout: on entering, the time is up; on leaving, it was up before what was waited for had come.
    """

    def __init__(self, timeout_s: float | None) -> None:
        self._waiting: asyncio.Task[object] | None = None
        self._is_up = False
        self._cancels = 0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        if timeout_s is not None:
            self._timer = self._loop.call_later(timeout_s + GRACE_S, self._end)

    def close(self) -> None:
        """Forget the time."""
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        self._is_up = True
        if self._waiting is not None:
            self._waiting.cancel()

    def __enter__(self) -> None:
        if self._is_up:
            raise _too_late()
        if self._timer is not None:
            # Without the loop it would be looked for, at the price of a system call for every event.
            self._waiting = asyncio.current_task(self._loop)
            assert self._waiting is not None
            self._cancels = self._waiting.cancelling()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        waiting, self._waiting = self._waiting, None
        # As asyncio.timeout does: who was also cancelled by somebody else stays cancelled.
        ended = self._is_up and waiting is not None and waiting.uncancel() <= self._cancels
        if ended and kind is asyncio.CancelledError:
            raise _too_late() from error


def _too_late() -> LLMTimeout:
    return LLMTimeout("The request's time was up before the text was complete.")
