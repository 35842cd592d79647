"""Requests as OpenTelemetry's spans: what a collector receives, and who did not ask for it pays nothing."""

import asyncio
import json
import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from tests.otlp_collector import collected, mute, spans_of
from tests.undisturbed import undisturbed

REPOSITORY = Path(__file__).parents[2]
PARENT = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")


@pytest.fixture(params=("llm", "backend", "frontend"))
def tier(request) -> str:
    return request.param


@pytest.fixture
def collector(tier, monkeypatch):
    """What is sent to where the variable says, however long that takes on this machine."""
    monkeypatch.setattr(import_module(f"functions.{tier}.telemetry.spans"), "_STOP_S", 30.0)
    with collected() as (address, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield received


def values(attributes) -> dict:
    """Attribute name to value."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


def serve(tier: str, app, spans, headers=(), path: str = "/made") -> dict:
    """Put one request through the middleware; gives the request's state."""

    async def ignore(_):
        pass

    async def receive():
        return {"type": "http.disconnect"}

    scope = {
        "type": "http", "method": "POST", "path": path, "headers": list(headers), "query_string": b"prompt=nevermore",
        "state": {"request_id": "raven-1"}, "server": ("127.0.0.1", 8008), "scheme": "http", "http_version": "1.1",
    }  # fmt: skip
    log = import_module(f"functions.{tier}.telemetry.request_log").RequestLog(app, spans)
    asyncio.run(log(scope, receive, ignore))
    return scope["state"]


def answering(tier: str, status: int = 200, **noted):
    """An app that answers, with that in its line."""

    async def app(scope, receive, send):
        current = import_module(f"functions.{tier}.telemetry.current")
        current.note(**noted)
        current.note_moment("first token", 1_800_000_000_000_000_000)
        scope["route"] = type("Route", (), {"path": "/{anything}"})()
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"nevermore", "more_body": False})

    return app


def new_spans(tier: str, **environ: str):
    return import_module(f"functions.{tier}.telemetry.spans").Spans(tier, environ)


def test_a_request_is_a_span_of_the_caller_s_trace(tier, collector):
    """With the very ids of the log, by the semantic conventions, and with nothing that anybody wrote."""
    spans = new_spans(tier)
    noted = {"model": "raven", "prompt_tokens": 9, "tokens": 3, "finish_reason": "stop"}
    headers = [(b"traceparent", f"00-{PARENT[0]}-{PARENT[1]}-01".encode()), (b"tracestate", b"raven=1")]
    state = serve(tier, answering(tier, **noted), spans, headers)
    assert collector == []  # not within the request
    spans.stop()
    [span] = spans_of(collector)
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.trace_state) == (*PARENT, "raven=1")
    assert span.span_id.hex() == state["trace"].span_id
    assert (span.name, span.kind) == ("POST /{anything}", span.SPAN_KIND_SERVER)
    assert span.end_time_unix_nano > span.start_time_unix_nano
    found = values(span.attributes)
    reasons = found.pop("gen_ai.response.finish_reasons")
    assert [each.string_value for each in reasons.values] == ["stop"]
    assert found == {
        "http.request.method": "POST", "http.route": "/{anything}", "url.path": "/made", "url.scheme": "http",
        "network.protocol.version": "1.1", "server.address": "127.0.0.1", "server.port": 8008,
        "http.response.status_code": 200, "huginn.request_id": "raven-1", "gen_ai.operation.name": "text_completion",
        "gen_ai.response.model": "raven", "gen_ai.usage.input_tokens": 9, "gen_ai.usage.output_tokens": 3,
    }  # fmt: skip
    assert [(event.name, event.time_unix_nano) for event in span.events] == [("first token", 1_800_000_000_000_000_000)]
    assert span.status.code == span.status.STATUS_CODE_UNSET
    resource = values(collector[0].resource_spans[0].resource.attributes)
    assert resource["service.name"] == f"huginn-{tier}"
    assert resource["service.instance.id"]
    assert b"nevermore" not in collector[0].SerializeToString()


def test_only_what_this_tier_could_not_do_is_an_error(tier, collector):
    """A refusal is the client's; a stream that has ended in an error is ours, whatever its status said."""
    spans = new_spans(tier)
    for status, noted in ((422, {"error": "invalid_prompt"}), (503, {}), (200, {"error": "queue_full"})):
        serve(tier, answering(tier, status, **noted), spans)
    serve(tier, answering(tier), spans, path="/readyz")
    spans.stop()
    found = [(values(span.attributes)["error.type"], span.status.code) for span in spans_of(collector)]
    error = 2
    assert found == [("invalid_prompt", 0), ("503", error), ("queue_full", error)]


@undisturbed
def test_a_collector_that_never_answers_holds_nobody_up(tier, monkeypatch):
    """A process has ten seconds to stop, and its streams are given most of them."""
    with mute() as address:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
        spans = new_spans(tier)
        serve(tier, answering(tier), spans)
        began = time.monotonic()
        spans.stop()
        assert time.monotonic() - began < 2


def test_who_does_not_record_is_followed_and_the_ids_stay(tier, collector):
    """The caller's decision is passed on, and nothing is sent; without a caller it is the sampler's."""
    spans = new_spans(tier)
    state = serve(tier, answering(tier), spans, [(b"traceparent", f"00-{PARENT[0]}-{PARENT[1]}-00".encode())])
    assert state["trace"].to_headers() == {"traceparent": f"00-{PARENT[0]}-{state['trace'].span_id}-00"}
    begun = serve(tier, answering(tier), spans)
    spans.stop()
    [span] = spans_of(collector)
    assert (span.trace_id.hex(), span.span_id.hex()) == (begun["trace"].trace_id, begun["trace"].span_id)
    assert begun["trace"].sampled


def test_a_sampler_of_the_environment_decides_for_the_tiers_behind(tier, collector, monkeypatch):
    """By OpenTelemetry's own variable."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    spans = new_spans(tier)
    assert serve(tier, answering(tier), spans)["trace"].to_headers()["traceparent"].endswith("-00")
    spans.stop()
    assert collector == []


def test_a_frozen_process_sends_before_it_is_frozen(tier, collector):
    """On AWS Lambda at the end of each request, under the function's name."""
    spans = new_spans(tier, AWS_LAMBDA_FUNCTION_NAME="mine")
    serve(tier, answering(tier), spans)
    [request] = collector
    assert values(request.resource_spans[0].resource.attributes)["service.name"] == "mine"
    spans.stop()


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "True"}, False),
    ],
)
def test_opentelemetry_s_own_variables_ask_for_it(tier, environ, wanted):
    """And a setting says so; for the model's metrics by their own names."""
    settings = import_module(f"functions.{tier}.settings").Settings
    given = {"HOME": "/nowhere", "HUGINN_AUTH": "off", "HUGINN_HOST": "127.0.0.1"}
    assert settings.from_env(given | environ).traces is wanted
    if tier == "llm":
        metrics = {name.replace("TRACES", "METRICS").replace("/v1/traces", ""): each for name, each in environ.items()}
        assert settings.from_env(given | metrics).otlp is wanted
        without_spans = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}
        assert settings.from_env(given | without_spans).otlp


def test_without_the_library_the_start_says_what_to_install(tier, monkeypatch):
    """The variable that asks for it, the library, and two ways out."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    settings = import_module(f"functions.{tier}.settings")
    environ = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x",
        "HOME": "/nowhere",
        "HUGINN_AUTH": "off",
        "HUGINN_HOST": "::1",
    }
    with pytest.raises(settings.SettingsError, match=r"OTLP_TRACES_ENDPOINT is set.*huginn\[telemetry\]"):
        settings.Settings.from_env(environ)


@pytest.mark.parametrize("tier", ["backend", "frontend"], indirect=True)
def test_without_the_variable_nothing_of_it_is_imported(tier):
    """The library and its friends cost a start a tenth of a second."""
    script = (
        f"import json, sys, functions.{tier}.handler\n"
        "forbidden = ('opentelemetry.sdk', 'opentelemetry.exporter', 'google.protobuf')\n"
        "print(json.dumps([name for name in sys.modules if name.startswith(forbidden)]))"
    )
    environ = {"PATH": os.defpath, "HUGINN_AUTH": "off", "HUGINN_HOST": "127.0.0.1"}
    run = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, env=environ, capture_output=True, check=True)
    assert json.loads(run.stdout.splitlines()[-1]) == []
