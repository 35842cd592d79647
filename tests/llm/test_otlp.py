"""Metrics by OTLP: a collector receives what Prometheus would be told, and who did not ask for it pays nothing."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from functions.llm.app import build_app
from functions.llm.metrics import Metrics
from functions.llm.otlp import OtlpExport
from functions.llm.settings import Settings, SettingsError
from tests.otlp_collector import mute
from tests.undisturbed import undisturbed

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def collector(monkeypatch):
    """Receives what is sent to /v1/metrics, and is where the variable says."""
    received: list[ExportMetricsServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/metrics"
            received.append(
                ExportMetricsServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
            )
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("functions.llm.otlp._STOP_S", 30.0)
    yield received
    server.shutdown()
    server.server_close()
    thread.join()


def told(request: ExportMetricsServiceRequest) -> dict:
    """Metric name to metric."""
    [resource] = request.resource_metrics
    [scope] = resource.scope_metrics
    return {metric.name: metric for metric in scope.metrics}


def resource_of(request: ExportMetricsServiceRequest) -> dict[str, str]:
    """The attributes of who has sent it."""
    return {each.key: each.value.string_value for each in request.resource_metrics[0].resource.attributes}


def test_a_collector_receives_what_prometheus_would(collector):
    """Sums, gauges and histograms of the same registry, sent once at the end."""
    metrics = Metrics()
    export = OtlpExport(metrics.registry, iter(range(100, 200)).__next__, 3600, {})
    export.begin()
    metrics.first_token(0.03)
    metrics.first_token(70.0)
    metrics.later_tokens(16, 0.0016)
    metrics.prompt_read(7)
    metrics.ended("stop")
    metrics.load_changed(3, 2)
    export.stop()
    [request] = collector
    found = told(request)
    [tokens] = found["huginn_llm_generated_tokens"].sum.data_points
    assert (tokens.as_double, tokens.start_time_unix_nano) == (18, 100)
    assert tokens.time_unix_nano > 100
    assert found["huginn_llm_generated_tokens"].sum.is_monotonic
    outcomes = {
        point.attributes[0].value.string_value: point.as_double
        for point in found["huginn_llm_requests"].sum.data_points
    }
    assert (outcomes["stop"], outcomes["error"]) == (1, 0)
    assert found["huginn_llm_queue_depth"].gauge.data_points[0].as_double == 3
    [first] = found["huginn_llm_time_to_first_token_seconds"].histogram.data_points
    assert (first.count, first.sum) == (2, pytest.approx(70.03))
    assert len(first.bucket_counts) == len(first.explicit_bounds) + 1
    assert first.bucket_counts[-1] == 1
    assert first.bucket_counts[list(first.explicit_bounds).index(0.05)] == 1
    assert found["huginn_llm_time_to_first_token_seconds"].unit == "s"
    assert found["process_resident_memory_bytes"].unit == "By"
    assert resource_of(request)["service.name"] == "huginn-llm"


def test_a_frozen_process_sends_when_it_is_due(collector):
    """At the end of an answer, and no more often than was asked for; each process under a name of its own."""
    clock = {"now": 0}
    exports = [OtlpExport(Metrics().registry, lambda: clock["now"], 60, {"OTEL_SERVICE_NAME": "mine"}) for _ in "ab"]
    for second in (30, 61, 90, 122):
        clock["now"] = second * 1_000_000_000
        exports[0].send_if_due()
    assert len(collector) == 2
    exports[1].send_if_due()
    names = [resource_of(request)["service.instance.id"] for request in collector]
    assert names[0] == names[1] != names[2]


@undisturbed
def test_a_collector_that_never_answers_holds_nobody_up(monkeypatch):
    """A process has ten seconds to stop, and its streams are given most of them."""
    with mute() as address:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
        export = OtlpExport(Metrics().registry, time.time_ns, 3600, {})
        export.begin()
        began = time.monotonic()
        export.stop()
        assert time.monotonic() - began < 2


def test_the_app_sends_where_the_variable_is_set(collector, checkpoints_folder):
    """At its end at the latest."""
    settings = Settings.from_env(
        {"CKPT_PATH": str(checkpoints_folder / "tiny-char"), "METRICS_PORT": "0",
         "OTEL_EXPORTER_OTLP_ENDPOINT": os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"]}
    )  # fmt: skip
    app = build_app(settings)

    async def live():
        async with app.router.lifespan_context(app):
            pass

    asyncio.run(live())
    assert "huginn_llm_build_info" in told(collector[-1])


def test_without_the_variable_nothing_of_it_is_imported():
    """The library and its friends cost a start a tenth of a second."""
    script = (
        "import json, sys, functions.llm.handler\n"
        "print(json.dumps([n for n in sys.modules if n.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        env={"LOG_LEVEL": "error", "PATH": os.defpath},
        capture_output=True,
        check=True,
    )
    assert json.loads(run.stdout) == []


def test_without_the_library_the_start_says_what_to_install(monkeypatch):
    """The variable that asks for it, the library, and two ways out."""
    monkeypatch.delitem(sys.modules, "functions.llm.otlp")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.metric_exporter", None)
    with pytest.raises(SettingsError, match=r"huginn\[telemetry\]"):
        build_app(Settings(otlp=True))
