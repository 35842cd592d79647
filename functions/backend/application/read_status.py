"""The use case of those who look on: what all instances of the model service do together."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from functions.backend.domain.llm_status import InstanceStatus, LLMStatus, total

# However many look on, the instances are asked once in that time.
KEPT_S = 1.0


class StatusSource(Protocol):
    """The instances of the model service, as far as they are known here."""

    async def statuses(self, request_id: str) -> tuple[InstanceStatus, ...]:
        """Ask all of them at once; those that do not answer soon are left out, and nothing is raised for them."""
        ...


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """How many instances answered, the models that they have in memory, and what they do; None if none answered."""

    instances: int
    models: tuple[str, ...]
    llm: LLMStatus | None


class ReadStatus:
    """Gives the status of the whole model service, at most `KEPT_S` old."""

    def __init__(self, source: StatusSource, clock: Callable[[], float]) -> None:
        self._source = source
        self._clock = clock
        self._asking = asyncio.Lock()
        self._read_at = float("-inf")
        self._kept = ServiceStatus(0, (), None)

    async def __call__(self, request_id: str) -> ServiceStatus:
        """Ask, or give what was answered a moment ago; never raises for a service that is away."""
        async with self._asking:
            if self._clock() - self._read_at >= KEPT_S:
                self._kept = together(await self._source.statuses(request_id))
                self._read_at = self._clock()
        return self._kept


def together(statuses: tuple[InstanceStatus, ...]) -> ServiceStatus:
    """Give what these instances do together."""
    # Several addresses may lead to one instance: a host by IPv4 and IPv6.
    instances = {status.instance: status for status in statuses}
    # While a new version is rolled out, those that measure as the first one does are told of.
    first = next(iter(instances.values()), None)
    if first is None:
        return ServiceStatus(0, (), None)
    alike = [status for status in instances.values() if _bounds(status) == _bounds(first)]
    models = {model for status in alike for model in status.models}
    return ServiceStatus(len(alike), tuple(sorted(models)), total([status.llm for status in alike]))


def _bounds(status: InstanceStatus) -> tuple[tuple[float, ...], ...]:
    return status.llm.time_to_first_token_s.bounds, status.llm.inter_token_s.bounds
