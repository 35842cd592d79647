"""The end of a request's time, whatever the model service does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from functions.backend.domain.errors import LLMTimeout

# The model service knows the same limit, and says better why it was not done; its word may still be on its way.
GRACE_S = 0.25


class TimeLimit:
    """A point in time up to which events are waited for; without seconds there is none."""

    def __init__(self, timeout_s: float | None) -> None:
        now = asyncio.get_running_loop().time()
        self._until = None if timeout_s is None else now + timeout_s + GRACE_S

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        """Wait no longer within this context.

        Raises:
            LLMTimeout: on leaving, what was waited for did not come.
        """
        try:
            async with asyncio.timeout_at(self._until):
                yield
        except TimeoutError as error:
            raise LLMTimeout("The request's time was up before the text was complete.") from error
