"""The metrics as lines in the log of AWS Lambda, where nobody can scrape them.

CloudWatch makes metrics of what a line declares, and keeps the rest for queries:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from threading import Lock
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from starlette.types import ASGIApp, Receive, Scope, Send

NAMESPACE = "Huginn"

# Each is a metric that CloudWatch charges for by the month; what else the registry knows goes along as fields of the
# line, which Logs Insights can query.
DECLARED: Mapping[str, str] = {
    "TimeToFirstToken": "Milliseconds",
    "InterTokenTime": "Milliseconds",
    "GeneratedTokens": "Count",
    "PromptTokens": "Count",
    "Requests": "Count",
    "FailedRequests": "Count",
}

# CloudWatch takes no more values of a metric in one line.
_MAX_VALUES = 100
_NOT_FAILED = frozenset({"stop", "length", "cancelled"})


class EmfLog:
    """Writes what has happened since the last time.

    Args:
        registry: whose metrics.
        function: the name of the Lambda function, and the only dimension.
        now: the time in seconds since 1970.
        write: takes a line.
    """

    def __init__(
        self, registry: CollectorRegistry, function: str, now: Callable[[], float], write: Callable[[str], object]
    ) -> None:
        self._registry, self._function, self._now, self._write = registry, function, now, write
        # Concurrent invocations share a process; each thing is told once.
        self._lock = Lock()
        self._told: dict[str, float] = {}

    def flush(self) -> None:
        """Write a line, unless nothing that CloudWatch counts has happened."""
        with self._lock:
            fields = self._fields()
            metrics = _declared(fields)
            if not metrics:
                return
            directive = {
                "Namespace": NAMESPACE,
                "Dimensions": [["Function"]],
                "Metrics": [{"Name": name, "Unit": DECLARED[name]} for name in metrics],
            }
            line = {
                "_aws": {"Timestamp": int(self._now() * 1000), "CloudWatchMetrics": [directive]},
                "Function": self._function,
                **metrics,
                **{name: value for name, value in fields.items() if "|" not in name},
            }
            self._write(json.dumps(line, separators=(",", ":")) + "\n")

    def _fields(self) -> dict[str, float]:
        """Return gauges as they are and the growth of what only grows; a bucket's name is NAME|BOUND."""
        fields = {}
        for metric in self._registry.collect():
            for name, value in _samples(metric):
                if metric.type != "gauge":
                    told, self._told[name] = self._told.get(name, 0.0), value
                    value -= told  # noqa: PLW2901
                    if not value:
                        continue
                fields[name] = value
        return fields


class FlushAfterAnswer:
    """Calls ``flush`` when an answer is complete: at the end of an invocation, for after it the process is frozen.

    Args:
        app: answers.
        flush: done at once, so that it is done even for an answer that is cancelled because its time is up.
        in_thread: for a ``flush`` that writes to another machine, while other streams go on; one that is cancelled
            does not wait for it.
    """

    def __init__(self, app: ASGIApp, flush: Callable[[], None], *, in_thread: bool = False) -> None:
        self._app, self._flush, self._in_thread = app, flush, in_thread

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass through."""
        try:
            await self._app(scope, receive, send)
        finally:
            if scope["type"] == "http":
                if self._in_thread:
                    await asyncio.to_thread(self._flush)
                else:
                    self._flush()


def _samples(metric: Metric) -> Iterator[tuple[str, float]]:
    """Yield name, with the labels' values, and value; of a histogram's cumulative buckets each one's own count."""
    if metric.type == "histogram":
        buckets = [sample for sample in metric.samples if sample.name.endswith("_bucket")]
        totals = [0.0, *(sample.value for sample in buckets)]
        for sample, (below, upto) in zip(buckets, pairwise(totals), strict=True):
            yield f"{metric.name}|{sample.labels['le']}", upto - below
    for sample in metric.samples:
        if not sample.name.endswith(("_bucket", "_created")):
            yield ".".join([sample.name, *sample.labels.values()]), sample.value


def _declared(fields: Mapping[str, float]) -> dict[str, Any]:
    """Return the metrics that CloudWatch is to have; none of them if nothing has happened."""
    requests = {
        name.partition(".")[2]: count for name, count in fields.items() if name.startswith("huginn_llm_requests_total.")
    }
    found = {
        "TimeToFirstToken": _milliseconds("huginn_llm_time_to_first_token_seconds", fields),
        "InterTokenTime": _milliseconds("huginn_llm_inter_token_seconds", fields),
        "GeneratedTokens": fields.get("huginn_llm_generated_tokens_total"),
        "PromptTokens": fields.get("huginn_llm_prompt_tokens_total"),
        "Requests": sum(requests.values()) or None,
    }
    declared: dict[str, Any] = {name: value for name, value in found.items() if value is not None}
    if requests:
        # A rate needs its zero.
        declared["FailedRequests"] = sum(count for outcome, count in requests.items() if outcome not in _NOT_FAILED)
    return declared


def _milliseconds(histogram: str, fields: Mapping[str, float]) -> float | list[float] | None:
    """Return the one observation, exactly; of several the upper bounds of their buckets; of very many the mean."""
    count, total = int(fields.get(f"{histogram}_count", 0)), fields.get(f"{histogram}_sum", 0.0)
    if not count:
        return None
    mean = round(1000 * total / count, 3)
    if count == 1 or count > _MAX_VALUES:
        return mean
    bounds = {name: name.partition("|")[2] for name in fields if name.startswith(f"{histogram}|")}
    finite = [1000 * float(bound) for bound in bounds.values() if bound != "+Inf"]
    # What is beyond the last bound was at least that long, and longer than the mean.
    beyond = max([mean, *finite])
    return [
        beyond if bound == "+Inf" else 1000 * float(bound)
        for name, bound in bounds.items()
        for _ in range(int(fields[name]))
    ]
