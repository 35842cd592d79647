"""The use case of those who look on: what all instances of the model service do together."""

from collections.abc import Callable
from typing import Protocol

from functions.backend.application.kept_answer import KeptAnswer
from functions.backend.application.ledger import Ledger, ServiceStatus
from functions.backend.domain.llm_status import InstanceStatus


class StatusSource(Protocol):
    """The instances of the model service, as far as they are known here."""

    async def statuses(self, request_id: str) -> tuple[InstanceStatus, ...]:
        """Ask all of them at once; those that do not answer soon are left out, and nothing is raised for them."""
        ...


class ReadStatus:
    """Gives the status of the whole model service, as a `KeptAnswer`."""

    def __init__(self, source: StatusSource, clock: Callable[[], float]) -> None:
        self._source = source
        self._clock = clock
        self._ledger = Ledger()
        self._asked_at = float("-inf")
        self._kept = KeptAnswer(self._ask, clock)

    async def __call__(self, request_id: str) -> ServiceStatus:
        """Ask, or give what was answered a moment ago; never raises for a service that is away."""
        return await self._kept(request_id)

    async def _ask(self, request_id: str) -> ServiceStatus:
        now = self._clock()
        statuses = await self._source.statuses(request_id)
        status = self._ledger.enter(statuses, self._clock() - self._asked_at)
        self._asked_at = now
        return status
