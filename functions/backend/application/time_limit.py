"""The end of a request's time, whatever the model service does."""

import asyncio
import math
from types import TracebackType

from functions.backend.domain.errors import DeadlineExceeded, LLMError, TimeLimitReached
from functions.backend.domain.events import StreamError

# The model service knows the same limit, and says better why it was not done; its word may still be on its way.
GRACE_S = 0.25


class Deadline:
    """The end of a request's time, which all that is done for it shares.

    Args:
        asked_s: the time that the request itself allows, from now on; None where it does not say.
        longest_s: the time that any may have.
    """

    def __init__(self, asked_s: float | None = None, longest_s: float = math.inf) -> None:
        self._loop = asyncio.get_running_loop()
        self._is_its_own = asked_s is not None and asked_s <= longest_s
        self._until = self._loop.time() + (longest_s if asked_s is None else min(asked_s, longest_s))

    def left(self) -> float | None:
        """Give how many seconds are left; None is no limit.

        Raises:
            DeadlineExceeded, TimeLimitReached: none are.
        """
        if self._until == math.inf:
            return None
        seconds = self._until - self._loop.time()
        if seconds <= 0:
            raise self.too_late()
        return seconds

    def too_late(self, message: str = "The request's time was up before the text was complete.") -> LLMError:
        """Give the error that a request's time is up, now: its own limit is nobody's failure."""
        # The model service may have begun a little earlier to count, and has a limit of its own.
        is_its_own = self._is_its_own and self._loop.time() + GRACE_S >= self._until
        return (TimeLimitReached if is_its_own else DeadlineExceeded)(message)

    def judge(self, error: LLMError) -> LLMError:
        """Give an error by its right name: the model service knows only one limit."""
        return self.too_late(error.message) if isinstance(error, DeadlineExceeded) else error

    def judge_end(self, end: StreamError) -> StreamError:
        """Do the same for the end of a stream."""
        if end.code != DeadlineExceeded.code:
            return end
        error = self.too_late(end.message)
        return StreamError(error.code, error.message, error.retryable)


class TimeLimit:
    """The point in time up to which events are waited for, `with` it around every wait; without an end there is none.

    One timer serves all waits, for there is one for every event: whoever makes a limit closes it.

    Raises:
        DeadlineExceeded, TimeLimitReached: on entering, the time is up; on leaving, it was up before what was waited
            for had come.
    """

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._waiting: asyncio.Task[object] | None = None
        self._is_up = False
        self._cancels = 0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        if (timeout_s := deadline.left()) is not None:
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
            raise self._deadline.too_late()
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
            raise self._deadline.too_late() from error
