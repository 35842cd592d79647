"""What the instances of the model service have counted, told so that two readings can be compared."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from functions.backend.domain.llm_status import InstanceStatus, LLMStatus, total

# An instance may count this long after its start before it can be asked: what it did until then is next to nothing.
_STARTING_S = 10.0
# Each restart leaves one behind; where there have been so many, they are forgotten.
_MAX_KNOWN = 512


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """How many instances answered, the models that they have in memory, and what they do; None if none answered.

    Of two with the same `epoch` the later one's counts are the earlier one's and what has happened between them.
    """

    instances: int
    models: tuple[str, ...]
    llm: LLMStatus | None
    epoch: int = 0


class Ledger:
    """Adds the instances up, and remembers what each has counted.

    One that misses a look, or ends, takes nothing away from the sum; one that begins adds what it does. Only where
    there comes one whose past is not known here does another epoch begin.
    """

    def __init__(self) -> None:
        self._epoch = 0
        self._known: dict[str, InstanceStatus] = {}

    def enter(self, statuses: Iterable[InstanceStatus], since_s: float) -> ServiceStatus:
        """Give what these do together.

        Args:
            statuses: all that have answered now; two of the same instance are one.
            since_s: how long ago those before were asked for.
        """
        # Several addresses may lead to one instance: a host by IPv4 and IPv6.
        present = self._alike({status.instance: status for status in statuses}.values())
        if not present:
            return ServiceStatus(0, (), None, self._epoch)
        new = [status for status in present if status.instance not in self._known]
        # What one did while it could not be asked would be taken for what it did since the last look.
        strange = any(status.uptime_s > since_s + _STARTING_S for status in new)
        if self._known and (strange or len(self._known) + len(new) > _MAX_KNOWN or not self._measures_as(present[0])):
            self._epoch += 1
            self._known.clear()
        self._known.update({status.instance: status for status in present})
        models = {model for status in present for model in status.models}
        llm = _counted_and_current([status.llm for status in self._known.values()], [status.llm for status in present])
        return ServiceStatus(len(present), tuple(sorted(models)), llm, self._epoch)

    def _alike(self, statuses: Iterable[InstanceStatus]) -> list[InstanceStatus]:
        """Give those that measure as the known ones do, or else as the first one: others cannot be added to them."""
        # While a new version is rolled out, both are there.
        statuses = list(statuses)
        wanted = next(filter(self._measures_as, statuses), None) or next(iter(statuses), None)
        return [status for status in statuses if wanted and _bounds(status) == _bounds(wanted)]

    def _measures_as(self, status: InstanceStatus) -> bool:
        """Say whether the known ones have the same bounds."""
        known = next(iter(self._known.values()), None)
        return known is not None and _bounds(known) == _bounds(status)


def _counted_and_current(known: list[LLMStatus], present: list[LLMStatus]) -> LLMStatus:
    """Give the counts of all that are known, and the state of those that are there."""
    now = total(present)
    return replace(
        total(known),
        queue_depth=now.queue_depth,
        max_queue=now.max_queue,
        active=now.active,
        slots=now.slots,
        watts_per_cpu=now.watts_per_cpu,
        resident_bytes=now.resident_bytes,
    )


def _bounds(status: InstanceStatus) -> tuple[tuple[float, ...], ...]:
    return status.llm.time_to_first_token_s.bounds, status.llm.inter_token_s.bounds
