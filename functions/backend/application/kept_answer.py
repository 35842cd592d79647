"""One question for all who would ask it at about the same time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

# However many look on, it is asked once in that time.
KEPT_S = 1.0


class KeptAnswer(Generic[T]):
    """Gives what was answered at most `KEPT_S` ago, or else asks; who comes meanwhile waits for the same answer.

    Args:
        ask: is given the id of the request that happened to come first.
        clock: seconds. It has to go on while nothing runs here, as on Lambda between two requests.
    """

    def __init__(self, ask: Callable[[str], Awaitable[T]], clock: Callable[[], float]) -> None:
        self._ask = ask
        self._clock = clock
        # If who asks is cancelled, the next asks.
        self._asking = asyncio.Lock()
        self._kept: tuple[float, T] | None = None

    async def __call__(self, request_id: str) -> T:
        """Give the answer; what `ask` raises is raised, and not kept."""
        async with self._asking:
            # A clock that was set back knows nothing of how old the answer is.
            if self._kept is None or not 0 <= self._clock() - self._kept[0] < KEPT_S:
                answer = await self._ask(request_id)
                self._kept = (self._clock(), answer)
            return self._kept[1]
