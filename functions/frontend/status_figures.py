"""What the page's status view says without scripts: how the model service has fared since its start.

`static/samples.js` computes the same from the difference of two readings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True)
class ModelFigures:
    """The model service, all instances together. None stands where nothing has happened yet that could be measured.

    Args:
        first_token_s: how long a request waited for its first token: p50, p95, p99.
        between_s: how long one token took after another: p50, p95, p99.
        cpu_s_per_1000: CPU seconds per 1000 tokens written, of the model service alone: Prometheus's `job="llm"`.
    """

    tokens: int
    first_token_s: tuple[float | None, ...]
    between_s: tuple[float | None, ...]
    active: int
    slots: int
    waiting: int
    max_queue: int
    cache_share: float | None
    cached_prompt_tokens: int
    prompt_tokens: int
    cpu_s_per_1000: float | None
    joules_per_1000: float | None
    watts_per_cpu: float
    resident_bytes: int


@dataclass(frozen=True)
class StatusFigures:
    """The whole system. `model` is None while no instance of the model service answers."""

    models: tuple[str, ...]
    instances: int
    uptime_s: float
    open_streams: int
    errors: tuple[tuple[str, int], ...]
    model: ModelFigures | None

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> Self:
        """The figures that are in the answer of the API's `GET /api/status`.

        Raises:
            ValueError, KeyError, TypeError: it is not as the API has it.
        """
        errors = {str(code): int(count) for code, count in body["backend"]["errors"].items() if count}
        return cls(
            models=tuple(map(str, body["models"])),
            instances=int(body["instances"]),
            uptime_s=float(body["uptime_s"]),
            open_streams=int(body["backend"]["open_streams"]),
            errors=tuple(sorted(errors.items(), key=lambda error: (-error[1], error[0]))),
            model=None if body["llm"] is None else _model_figures(body["llm"]),
        )


def _model_figures(llm: Mapping[str, Any]) -> ModelFigures:
    tokens, watts = int(llm["tokens_generated"]), float(llm["watts_per_cpu"])
    hits, misses = int(llm["cache_hits"]), int(llm["cache_misses"])
    cpu_s_per_1000 = 1000 * float(llm["cpu_seconds"]) / tokens if tokens else None
    return ModelFigures(
        tokens=tokens,
        first_token_s=_quantiles(llm["time_to_first_token_s"]),
        between_s=_quantiles(llm["inter_token_s"]),
        active=int(llm["active"]),
        slots=int(llm["slots"]),
        waiting=int(llm["queue_depth"]),
        max_queue=int(llm["max_queue"]),
        cache_share=hits / (hits + misses) if hits + misses else None,
        cached_prompt_tokens=int(llm["cached_prompt_tokens"]),
        prompt_tokens=int(llm["prompt_tokens"]),
        cpu_s_per_1000=cpu_s_per_1000,
        joules_per_1000=None if cpu_s_per_1000 is None else cpu_s_per_1000 * watts,
        watts_per_cpu=watts,
        resident_bytes=int(llm["resident_bytes"]),
    )


def _quantiles(histogram: Mapping[str, Any]) -> tuple[float | None, ...]:
    bounds, counts = [float(bound) for bound in histogram["bounds"]], [int(count) for count in histogram["counts"]]
    if len(counts) != len(bounds) + 1:
        raise ValueError(f"a histogram with {len(bounds)} bounds has {len(counts)} counts")
    return tuple(quantile(bounds, counts, share) for share in QUANTILES)


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """What `share` of the measurements are at most, as Prometheus's histogram_quantile estimates it.

    Of `bounds`, ascending, each is the upper one of a bucket; `counts` says how many were at most each, and lastly how
    many there were at all. Within a bucket they are taken to lie evenly; what is above the last bound counts as it.
    """
    total = counts[-1]
    if not total:
        return None
    rank = share * total
    low, below = 0.0, 0
    for bound, count in zip(bounds, counts, strict=False):
        if count >= rank:
            return low + (bound - low) * (rank - below) / (count - below)
        low, below = bound, count
    return bounds[-1]
