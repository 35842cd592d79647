"""What the model service has done since its start, and is doing, on however many instances."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often something took how long: `counts` says how many took at most each of `bounds`, and lastly all."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.bounds) + 1:
            raise ValueError(f"there are {len(self.counts)} counts for {len(self.bounds)} bounds, not one more")


@dataclass(frozen=True, slots=True)
class LLMStatus:
    """The counts of one instance or of several; those that only grow begin anew when an instance does."""

    tokens_generated: int
    prompt_tokens: int
    cached_prompt_tokens: int
    requests: dict[str, int]  # by how they ended
    queue_depth: int
    max_queue: int
    active: int
    slots: int
    cache_hits: int
    cache_misses: int
    cpu_seconds: float
    watts_per_cpu: float
    resident_bytes: int
    time_to_first_token_s: Histogram
    inter_token_s: Histogram


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """One instance, by the name that it drew at its start, how old it is, and the models that it has in memory."""

    instance: str
    uptime_s: float
    models: tuple[str, ...]
    llm: LLMStatus


def total(statuses: Sequence[LLMStatus]) -> LLMStatus:
    """Give what several instances, at least one, do together.

    Raises:
        ValueError: their histograms have different bounds, so they cannot be added.
    """
    requests: Counter[str] = Counter()
    for status in statuses:
        requests.update(status.requests)
    return LLMStatus(
        tokens_generated=sum(status.tokens_generated for status in statuses),
        prompt_tokens=sum(status.prompt_tokens for status in statuses),
        cached_prompt_tokens=sum(status.cached_prompt_tokens for status in statuses),
        requests=dict(requests),
        queue_depth=sum(status.queue_depth for status in statuses),
        max_queue=sum(status.max_queue for status in statuses),
        active=sum(status.active for status in statuses),
        slots=sum(status.slots for status in statuses),
        cache_hits=sum(status.cache_hits for status in statuses),
        cache_misses=sum(status.cache_misses for status in statuses),
        cpu_seconds=sum(status.cpu_seconds for status in statuses),
        # Set to the same for all of them, unless somebody is changing it.
        watts_per_cpu=max(status.watts_per_cpu for status in statuses),
        resident_bytes=sum(status.resident_bytes for status in statuses),
        time_to_first_token_s=_added([status.time_to_first_token_s for status in statuses]),
        inter_token_s=_added([status.inter_token_s for status in statuses]),
    )


def _added(histograms: Sequence[Histogram]) -> Histogram:
    bounds = histograms[0].bounds
    if any(histogram.bounds != bounds for histogram in histograms):
        raise ValueError("instances of different versions have histograms with different bounds")
    columns = zip(*(histogram.counts for histogram in histograms), strict=True)
    return Histogram(bounds, tuple(map(sum, columns)), sum(histogram.sum for histogram in histograms))
