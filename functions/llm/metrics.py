"""What Prometheus may know of the llm function, on a port of its own."""

import logging
import sys
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from threading import Lock, Thread
from types import TracebackType
from typing import Self, get_args
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client import start_http_server as start_exposition
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from functions.llm.checkpoints.checkpoint import Checkpoint
from functions.llm.inference.engine import Outcome

# From one step of a small model to a prompt of minutes.
FIRST_TOKEN_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
INTER_TOKEN_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


logger = logging.getLogger(__name__)


class MetricsPortTakenError(OSError):
    """Another process listens where the metrics should be; the message names the port and the way out."""


class RepeatedHistogram(Collector):
    """A Prometheus histogram that takes many equal observations in one step: the tokens of a chunk."""

    def __init__(self, name: str, documentation: str, *, buckets: Sequence[float], registry: CollectorRegistry) -> None:
        """Begin empty; ``buckets`` are upper bounds, ascending, without infinity."""
        self._name, self._documentation, self._bounds = name, documentation, tuple(buckets)
        self._lock = Lock()
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, value: float, times: int) -> None:
        """Count ``value`` so many times."""
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += times
            self._sum += value * times

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield what Prometheus is told."""
        with self._lock:
            totals, total = list(accumulate(self._counts)), self._sum
        bounds = [*map(str, self._bounds), "+Inf"]
        buckets = list(zip(bounds, map(float, totals), strict=True))
        yield HistogramMetricFamily(self._name, self._documentation, buckets=buckets, sum_value=total)


class Metrics:
    """The metrics of one process, in a registry of their own; hears the engine and the model store.

    Besides those below: process_cpu_seconds_total, process_resident_memory_bytes and their kin, and python_info.

    Args:
        slots: how many requests are answered at the same time.
        max_queue: how many more may wait.
        watts_per_cpu: what a busy CPU is taken to draw.
        refusals: the codes of errors that requests may be refused with.
    """

    def __init__(
        self, *, slots: int = 0, max_queue: int = 0, watts_per_cpu: float = 0.0, refusals: Iterable[str] = ()
    ) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._build = Gauge(
            "huginn_llm_build_info", "Always 1; the labels tell versions.", ("version", "jax"), registry=registry
        )
        self._build.labels(_version("huginn"), _version("jax")).set(1)
        self._requests = Counter(
            "huginn_llm_requests", "Requests for text, by how they ended: an outcome, or the code of a refusal.",
            ("outcome",), registry=registry,
        )  # fmt: skip
        self._tokens_in = Counter(
            "huginn_llm_prompt_tokens", "Prompt tokens read, those found in the cache included.", registry=registry
        )
        self._tokens_out = Counter("huginn_llm_generated_tokens", "Tokens generated.", registry=registry)
        self._first_token = Histogram(
            "huginn_llm_time_to_first_token_seconds", "From the request to its first token, waiting included.",
            buckets=FIRST_TOKEN_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._inter_token = RepeatedHistogram(
            "huginn_llm_inter_token_seconds", "Between tokens; tokens of one chunk share its time.",
            buckets=INTER_TOKEN_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._waiting = Gauge("huginn_llm_queue_depth", "Requests that wait for their turn.", registry=registry)
        self._active = Gauge("huginn_llm_active_streams", "Requests that are being answered.", registry=registry)
        self._cache_lookups = Counter(
            "huginn_llm_prompt_cache_lookups", "Prompts looked up, by whether a beginning was known: hit or miss.",
            ("result",), registry=registry,
        )  # fmt: skip
        self._cached_tokens = Counter(
            "huginn_llm_cached_prompt_tokens", "Prompt tokens that needed no reading.", registry=registry
        )
        self._cache_bytes = Gauge("huginn_llm_prompt_cache_bytes", "Size of the cached states.", registry=registry)
        self._cache_states = Gauge("huginn_llm_prompt_cache_states", "How many states are cached.", registry=registry)
        self._model_bytes = Gauge(
            "huginn_llm_model_size_bytes", "Size of the weights of a model in memory.", ("model",), registry=registry
        )
        self._model_parameters = Gauge(
            "huginn_llm_model_parameters", "Parameters of a model in memory.", ("model",), registry=registry
        )
        for name, documentation, value in (
            ("huginn_llm_slots", "How many requests are answered at the same time.", slots),
            ("huginn_llm_max_queue", "How many more requests may wait.", max_queue),
            ("huginn_llm_watts_per_cpu", "What a busy CPU is taken to draw: an estimate, not measured.", watts_per_cpu),
        ):
            Gauge(name, documentation, registry=registry).set(value)
        # A rate needs its zero: an outcome that has not happened yet is 0, not unknown.
        for outcome in (*get_args(Outcome), *refusals):
            self._requests.labels(outcome)
        for result in ("hit", "miss"):
            self._cache_lookups.labels(result)

    def load_changed(self, waiting: int, active: int) -> None:
        """So many requests wait, and so many are being answered."""
        self._waiting.set(waiting)
        self._active.set(active)

    def first_token(self, seconds: float) -> None:
        """A generation's first token came so long after the request."""
        self._first_token.observe(seconds)
        self._tokens_out.inc()

    def later_tokens(self, count: int, seconds: float) -> None:
        """``count`` more tokens came, so long after the one before."""
        self._inter_token.observe(seconds / count, count)
        self._tokens_out.inc(count)

    def prompt_read(self, tokens: int) -> None:
        """So many more tokens of a prompt were read, besides those that the cache knew."""
        self._tokens_in.inc(tokens)

    def ended(self, outcome: Outcome) -> None:
        """A generation is over."""
        self._requests.labels(outcome).inc()

    def prompt_looked_up(self, cached_tokens: int) -> None:
        """A prompt's first ``cached_tokens`` needed no reading: they are read, and at no time fewer than are cached."""
        self._cache_lookups.labels("hit" if cached_tokens else "miss").inc()
        self._tokens_in.inc(cached_tokens)
        self._cached_tokens.inc(cached_tokens)

    def prompt_cache_changed(self, size_bytes: int, states: int) -> None:
        """So many states are kept, of so many bytes."""
        self._cache_bytes.set(size_bytes)
        self._cache_states.set(states)

    def refused(self, code: str) -> None:
        """A request was answered with the error ``code`` before anything was generated."""
        self._requests.labels(code).inc()

    def model_loaded(self, checkpoint: Checkpoint) -> None:
        """A model is in memory."""
        self._model_bytes.labels(checkpoint.name).set(checkpoint.size_bytes)
        self._model_parameters.labels(checkpoint.name).set(
            sum(array.size for array in checkpoint.model.params.values())
        )

    def model_dropped(self, name: str) -> None:
        """A model is no longer in memory."""
        self._model_bytes.remove(name)
        self._model_parameters.remove(name)


class MetricsServer:
    """GET /metrics on ``port`` for as long as the context lasts; nothing at all if ``port`` is 0."""

    def __init__(self, metrics: Metrics, host: str, port: int) -> None:
        self._metrics = metrics
        self._host = host
        self._port = port
        self._running: tuple[WSGIServer, Thread] | None = None

    def __enter__(self) -> Self:
        if self._port == 0:
            return self
        try:
            self._running = start_exposition(self._port, addr=self._host, registry=self._metrics.registry)
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
        logger.debug("Who asked for the metrics is gone: %s", error)
    else:
        logger.error("The metrics could not be sent", exc_info=error)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        # In a container the functions are files, not an installed package.
        return "unknown"
