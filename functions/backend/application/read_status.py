"""The use case of those who look on: what all instances of the model service do together."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from functions.backend.application.ledger import Ledger, ServiceStatus
from functions.backend.domain.llm_status import InstanceStatus

# However many look on, the instances are asked once in that time.
KEPT_S = 1.0


class StatusSource(Protocol):
    """The instances of the model service, as far as they are known here."""

    async def statuses(self, request_id: str) -> tuple[InstanceStatus, ...]:
        """Ask all of them at once; those that do not answer soon are left out, and nothing is raised for them."""
        ...


class ReadStatus:
    """Gives the status of the whole model service, at most `KEPT_S` old."""

    def __init__(self, source: StatusSource, clock: Callable[[], float]) -> None:
        self._source = source
        self._clock = clock
        self._asking = asyncio.Lock()
        self._ledger = Ledger()
        self._asked_at = self._read_at = float("-inf")
        self._kept = ServiceStatus(0, (), None)

    async def __call__(self, request_id: str) -> ServiceStatus:
        """Ask, or give what was answered a moment ago; never raises for a service that is away."""
        async with self._asking:
            now = self._clock()
            if now - self._read_at >= KEPT_S:
                statuses = await self._source.statuses(request_id)
                self._kept = self._ledger.enter(statuses, self._clock() - self._asked_at)
                self._asked_at, self._read_at = now, self._clock()
        return self._kept
