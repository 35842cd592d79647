"""GET /status: the metrics as one small JSON object, for those who want to look without Prometheus."""

import time
import uuid
from collections.abc import Mapping

from fastapi import APIRouter
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, Field


class Histogram(BaseModel):
    """How often something took how long, since the start."""

    bounds: list[float] = Field(description="Upper bounds in seconds, ascending; infinity is not among them.")
    counts: list[int] = Field(description="How many took at most so long; the last one is how many there were.")
    sum: float


class LLMStatus(BaseModel):
    """What one instance has done since its start, and what it is doing."""

    tokens_generated: int
    prompt_tokens: int = Field(description="Read, or found in the cache.")
    cached_prompt_tokens: int
    requests: dict[str, int] = Field(description="By how they ended: an outcome, or the code of a refusal.")
    queue_depth: int = Field(description="How many requests wait now.")
    max_queue: int
    active: int = Field(description="How many requests are being answered now.")
    slots: int
    cache_hits: int
    cache_misses: int
    cpu_seconds: float
    watts_per_cpu: float = Field(description="An estimate: WATTS_PER_CPU.")
    resident_bytes: int = Field(description="0 where the system does not say.")
    time_to_first_token_s: Histogram
    inter_token_s: Histogram


class Status(BaseModel):
    """One instance of the llm function. All counts only grow; who looks takes differences between two looks."""

    time: float = Field(description="Seconds since 1970.")
    instance: str = Field(description="A name drawn at the start: with another one, all counts have begun anew.")
    instances: int = Field(description="Always 1.")
    uptime_s: float
    models: list[str] = Field(description="The models in memory.")
    llm: LLMStatus


def status_router(registry: CollectorRegistry) -> APIRouter:
    """Return the route that tells what the metrics of ``registry`` are now."""
    router = APIRouter(tags=["health"])
    began, instance = time.monotonic(), uuid.uuid4().hex

    @router.get("/status")
    async def status() -> Status:
        """Say what this instance has done, and what it is doing."""
        samples = _Samples(registry)
        return Status(
            time=time.time(),
            instance=instance,
            instances=1,
            uptime_s=time.monotonic() - began,
            models=sorted(samples.by_label("huginn_llm_model_size_bytes")),
            llm=_llm_status(samples),
        )

    return router


def _llm_status(samples: "_Samples") -> LLMStatus:
    lookups = samples.by_label("huginn_llm_prompt_cache_lookups_total")
    return LLMStatus(
        tokens_generated=int(samples["huginn_llm_generated_tokens_total"]),
        prompt_tokens=int(samples["huginn_llm_prompt_tokens_total"]),
        cached_prompt_tokens=int(samples["huginn_llm_cached_prompt_tokens_total"]),
        requests={outcome: int(count) for outcome, count in samples.by_label("huginn_llm_requests_total").items()},
        queue_depth=int(samples["huginn_llm_queue_depth"]),
        max_queue=int(samples["huginn_llm_max_queue"]),
        active=int(samples["huginn_llm_active_streams"]),
        slots=int(samples["huginn_llm_slots"]),
        cache_hits=int(lookups["hit"]),
        cache_misses=int(lookups["miss"]),
        # Of all threads. The registry has it on Linux only.
        cpu_seconds=time.process_time(),
        watts_per_cpu=samples["huginn_llm_watts_per_cpu"],
        resident_bytes=int(samples.get("process_resident_memory_bytes")),
        time_to_first_token_s=samples.histogram("huginn_llm_time_to_first_token_seconds"),
        inter_token_s=samples.histogram("huginn_llm_inter_token_seconds"),
    )


class _Samples:
    """All samples of a registry at one moment; those with a label by its value, in order."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._samples: dict[str, dict[str, float]] = {}
        for metric in registry.collect():
            for sample in metric.samples:
                self._samples.setdefault(sample.name, {})["".join(sample.labels.values())] = sample.value

    def __getitem__(self, name: str) -> float:
        """Return the one without labels."""
        return self._samples[name][""]

    def get(self, name: str) -> float:
        """Return the one without labels, or 0."""
        return self._samples.get(name, {}).get("", 0.0)

    def by_label(self, name: str) -> Mapping[str, float]:
        """Return those with one label by its value."""
        return self._samples.get(name, {})

    def histogram(self, name: str) -> Histogram:
        buckets = self.by_label(f"{name}_bucket")
        bounds = [float(bound) for bound in buckets if bound != "+Inf"]
        return Histogram(bounds=bounds, counts=[int(count) for count in buckets.values()], sum=self[f"{name}_sum"])
