"""What Prometheus may know of the backend, on a port of its own. Imported only where somebody scrapes it."""

import logging
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate, product
from threading import Thread
from types import TracebackType
from typing import Self
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client import start_http_server as start_exposition
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from functions.backend.controllers.traffic import Durations, Traffic

TIER = "backend"

_log = logging.getLogger(__name__)


class MetricsPortTakenError(OSError):
    """Another process listens where the metrics should be; the message names the port and the way out."""


def registry_of(traffic: Traffic, codes: Iterable[str] = (), routes: Iterable[str] = ()) -> CollectorRegistry:
    """Give the metrics of this process: the traffic, what the process takes, and its version.

    Args:
        traffic: read whenever somebody scrapes.
        codes: of errors that may happen; what has not happened yet is 0 then, and not unknown.
        routes: where each of them may.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(_TrafficCollector(traffic, tuple(product(codes, routes))))
    return registry


class _TrafficCollector(Collector):
    def __init__(self, traffic: Traffic, errors: tuple[tuple[str, str], ...]) -> None:
        self._traffic = traffic
        self._errors = errors

    def collect(self) -> Iterator[Metric]:
        """Yield what has been counted. The event loop's thread goes on counting: what is iterated over is a copy."""
        traffic, name = self._traffic, f"huginn_{TIER}"
        yield GaugeMetricFamily(
            f"{name}_requests_in_progress", "Requests that are being answered.", traffic.in_progress
        )
        yield GaugeMetricFamily(f"{name}_open_streams", "Answers that have begun and grow.", traffic.open_streams)
        requests = CounterMetricFamily(
            f"{name}_requests", "Requests, by how they were answered.", labels=("method", "route", "status")
        )
        for (method, route, status), count in list(traffic.answers.items()):
            requests.add_metric((method, route, str(status)), count)
        yield requests
        errors = CounterMetricFamily(
            f"{name}_errors", "Requests that ended with an error, by its code.", labels=("code", "route")
        )
        for of_error, count in (dict.fromkeys(self._errors, 0) | dict(traffic.errors)).items():
            errors.add_metric(of_error, count)
        yield errors
        sent = CounterMetricFamily(f"{name}_sent_bytes", "Bytes of answers' bodies.", labels=("route",))
        chunks = CounterMetricFamily(f"{name}_sent_chunks", "Pieces that they were sent in.", labels=("route",))
        first = HistogramMetricFamily(
            f"{name}_time_to_first_byte_seconds", "From the request to its answer's first byte.", labels=("route",)
        )
        whole = HistogramMetricFamily(
            f"{name}_request_duration_seconds", "From the request to its answer's end.", labels=("route",)
        )
        for path, answered in list(traffic.routes.items()):
            sent.add_metric((path,), answered.bytes)
            chunks.add_metric((path,), answered.chunks)
            first.add_metric((path,), _buckets(answered.first_byte), answered.first_byte.sum)
            whole.add_metric((path,), _buckets(answered.whole), answered.whole.sum)
        yield from (sent, chunks, first, whole)
        build = GaugeMetricFamily(f"{name}_build_info", "Always 1; the label tells the version.", labels=("version",))
        build.add_metric((_version(),), 1)
        yield build


def _buckets(durations: Durations) -> list[tuple[str, float]]:
    bounds = [*map(str, durations.bounds), "+Inf"]
    return list(zip(bounds, map(float, accumulate(durations.counts)), strict=True))


def _version() -> str:
    try:
        return version("huginn")
    except PackageNotFoundError:
        # In a container the functions are files, not an installed package.
        return "unknown"


class MetricsServer:
    """GET /metrics on ``port``, on a thread of its own, for as long as the context lasts."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        self._registry = registry
        self._host = host
        self._port = port
        self._running: tuple[WSGIServer, Thread] | None = None

    def __enter__(self) -> Self:
        try:
            self._running = start_exposition(self._port, addr=self._host, registry=self._registry)
        except OSError as error:
            raise MetricsPortTakenError(
                f"The metrics cannot listen on {self._host}:{self._port} ({error.strerror}). Stop what listens there, "
                f"or set METRICS_PORT to a free port, or to 0 for no metrics."
            ) from error
        self._running[0].handle_error = _log_failure  # type: ignore[method-assign]  # its own prints a traceback
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._running is not None:
            server, thread = self._running
            server.shutdown()
            server.server_close()
            thread.join()


def _log_failure(request: object, client_address: object) -> None:  # noqa: ARG001 - as socketserver calls it
    """Say in the log what is being raised: to stop asking is anybody's right, all else is a fault of ours."""
    error = sys.exception()
    if isinstance(error, ConnectionError | TimeoutError):
        _log.debug("Who asked for the metrics is gone: %s", error)
    else:
        _log.error("The metrics could not be sent", exc_info=error)
