"""The same metrics sent on by OTLP, where OTEL_EXPORTER_OTLP_ENDPOINT says whom to.

OpenTelemetry's own library makes the messages and reads its own variables: headers, time-out, certificates, resource.
Importing this module needs the extra `telemetry`.
"""

import os
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import export as otel
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.samples import Sample

_SCOPE = InstrumentationScope("huginn.llm")
# As long as the last spans are given, beside which the last message is sent.
_STOP_S = 1.0
_UNITS = {"_seconds": "s", "_bytes": "By"}


class OtlpExport:
    """Sends the registry every so often between `begin` and `stop`, and once more at the end.

    Args:
        registry: whose metrics, all of them.
        now_ns: the time in nanoseconds since 1970.
        interval_s: how long between two times.
        environ: the resource's name, where it has one.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        now_ns: Callable[[], int],
        interval_s: float,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._registry, self._now_ns, self._interval_s, self._environ = registry, now_ns, interval_s, environ
        self._exporter = OTLPMetricExporter()
        self._began_ns = now_ns()
        self._last_ns = self._began_ns
        self._resource: Resource | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Begin to send, on a thread of its own."""
        self._thread = threading.Thread(target=self._send_repeatedly, name="otlp", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send for the last time, and return when that is done, or after a moment in any case."""
        self._stopping.set()
        assert self._thread is not None
        # A collector that takes a message and does not answer must not outlast the time that we have to stop.
        self._thread.join(_STOP_S)
        # It is not tried again after that, nor by a process that lives on.
        self._exporter.shutdown()

    def send(self) -> None:
        """Send everything; that it could not be sent is in the library's log."""
        with self._lock:
            self._last_ns = self._now_ns()
            scope = otel.ScopeMetrics(_SCOPE, self._metrics(self._last_ns), schema_url="")
            self._exporter.export(otel.MetricsData([otel.ResourceMetrics(self._made_resource(), [scope], "")]))

    def send_if_due(self) -> None:
        """Send if the last time is long enough ago: for a process that is frozen in between, and whose threads are."""
        if self._now_ns() - self._last_ns >= self._interval_s * 1e9:
            self.send()

    def _send_repeatedly(self) -> None:
        while not self._stopping.wait(self._interval_s):
            self.send()
        self.send()

    def _made_resource(self) -> Resource:
        # Not before the first sending: processes that come out of one snapshot must not have one name.
        if self._resource is None:
            attributes = {"service.instance.id": str(uuid.uuid4())}
            if "OTEL_SERVICE_NAME" not in self._environ and "service.name=" not in self._environ.get(
                "OTEL_RESOURCE_ATTRIBUTES", ""
            ):
                attributes["service.name"] = self._environ.get("AWS_LAMBDA_FUNCTION_NAME", "huginn-llm")
            self._resource = Resource.create(attributes)
        return self._resource

    def _metrics(self, now_ns: int) -> list[otel.Metric]:
        return [
            otel.Metric(metric.name, metric.documentation, _unit(metric.name), data)
            for metric in self._registry.collect()
            if (data := _data(metric, self._began_ns, now_ns)) is not None
        ]


def _data(metric: Metric, began_ns: int, now_ns: int) -> otel.Sum | otel.Gauge | otel.Histogram | None:
    cumulative = otel.AggregationTemporality.CUMULATIVE
    samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
    if metric.type == "histogram":
        return otel.Histogram([_histogram_point(samples, began_ns, now_ns)], cumulative)
    points = [otel.NumberDataPoint(sample.labels, began_ns, now_ns, sample.value) for sample in samples]
    if not points:
        return None
    return otel.Sum(points, cumulative, is_monotonic=True) if metric.type == "counter" else otel.Gauge(points)


def _histogram_point(samples: Iterable[Sample], began_ns: int, now_ns: int) -> otel.HistogramDataPoint:
    """Return a histogram without labels, as all of ours are: Prometheus's buckets hold what is below them as well."""
    totals, bounds, total = [0.0], [], 0.0
    for sample in samples:
        if sample.name.endswith("_bucket"):
            totals.append(sample.value)
            bounds.append(float(sample.labels["le"]))
        elif sample.name.endswith("_sum"):
            total = sample.value
    counts = [int(upto - below) for below, upto in pairwise(totals)]
    unknown: Any = None  # the least and the greatest, which the protocol may go without
    return otel.HistogramDataPoint({}, began_ns, now_ns, sum(counts), total, counts, bounds[:-1], unknown, unknown)


def _unit(name: str) -> str:
    return next((unit for ending, unit in _UNITS.items() if name.endswith(ending)), "1")
