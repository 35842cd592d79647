"""Both web tiers count alike: what passes through them, and what Prometheus is told of it."""

import asyncio
import json
import logging
import socket
import socketserver
import struct
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from functions.backend.settings import Settings as BackendSettings
from functions.frontend.settings import Settings as FrontendSettings
from tests.frontend.loopback import serve
from tests.unused_ports import unused_address, unused_port

REPOSITORY = Path(__file__).parents[2]
MODULES = {
    "backend": ("functions.backend.controllers.traffic", "functions.backend.metrics"),
    "frontend": ("functions.frontend.traffic", "functions.frontend.metrics"),
}
SETTINGS = {
    "backend": lambda **given: BackendSettings(llm_url=f"{unused_address()}/generate/stream", **given),
    "frontend": lambda **given: FrontendSettings(unused_address(), **given),
}
HEAD = {"type": "http.response.start", "status": 200, "headers": []}
END = {"type": "http.response.body", "body": b""}


@pytest.fixture(params=MODULES)
def tier(request):
    """A web tier's counters, as seen by Prometheus too."""
    traffic, metrics = map(import_module, MODULES[request.param])
    counters = traffic.Traffic()
    return SimpleNamespace(
        name=request.param,
        traffic=traffic,
        counters=counters,
        registry=metrics.registry_of(counters, ["known"], ["/route", "/other"]),
        clock=Clock(),
    )


class Clock:
    """Time that passes when a test says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def chunk(body):
    return {"type": "http.response.body", "body": body, "more_body": True}


def pass_through(tier, app, method="POST", route="/route"):
    """Let one request pass through the middleware; gives what it sent on."""
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": "/whatever/path"}

    async def routed(scope, receive, send):
        if route is not None:
            scope["route"] = SimpleNamespace(path=route)
        await app(scope, send)

    asyncio.run(tier.traffic.TrafficMiddleware(routed, tier.counters, tier.clock)(scope, None, send))
    return sent


def samples(tier):
    """All of the tier's samples that are not 0, without its name, by name and labels."""
    prefix = f"huginn_{tier.name}_"
    return {
        (sample.name.removeprefix(prefix), *sample.labels.values()): sample.value
        for family in tier.registry.collect()
        for sample in family.samples
        if sample.name.startswith(prefix) and sample.value
    }


def test_what_passes_is_counted_and_sent_on_as_it_is(tier):
    """Pieces, bytes, the first byte's time and the whole time, by route; and nothing is held back."""
    messages = [HEAD, chunk(b"four"), chunk(b""), chunk(b"123456"), END]

    async def app(_, send):
        for seconds, message in zip([0.3, 0.4, 0, 3.3, 0], messages, strict=True):
            tier.clock.now += seconds
            await send(message)

    assert pass_through(tier, app) == messages
    found = samples(tier)
    assert found["requests_total", "POST", "/route", "200"] == 1
    assert found["sent_bytes_total", "/route"] == 10
    assert found["sent_chunks_total", "/route"] == 2
    assert found["time_to_first_byte_seconds_sum", "/route"] == pytest.approx(0.7)
    assert found["request_duration_seconds_sum", "/route"] == pytest.approx(4.0)
    assert ("time_to_first_byte_seconds_bucket", "/route", "0.5") not in found
    assert found["time_to_first_byte_seconds_bucket", "/route", "1.0"] == 1
    assert found["time_to_first_byte_seconds_bucket", "/route", "+Inf"] == 1
    assert ("request_duration_seconds_bucket", "/route", "2.5") not in found
    assert found["request_duration_seconds_bucket", "/route", "5.0"] == 1
    assert not {"open_streams", "requests_in_progress"} & {name for name, *_ in found}


def test_a_stream_is_open_from_its_head_to_its_end(tier):
    """An answer that says how long it is is none; one that is cut off is over too."""
    open_then = []

    async def stream(_, send):
        open_then.append(tier.counters.open_streams)
        await send(HEAD)
        open_then.append(tier.counters.open_streams)
        await send(chunk(b"a"))
        open_then.append(tier.counters.open_streams)
        await send(END)
        open_then.append(tier.counters.open_streams)

    async def whole(_, send):
        await send(HEAD | {"headers": [(b"Content-Length", b"1")]})
        open_then.append(tier.counters.open_streams)
        await send(END)

    async def cut_off(_, send):
        await send(HEAD)
        raise ZeroDivisionError

    pass_through(tier, stream)
    pass_through(tier, whole)
    with pytest.raises(ZeroDivisionError):
        pass_through(tier, cut_off)
    assert [*open_then, tier.counters.open_streams] == [0, 1, 1, 0, 0, 0]
    assert tier.counters.in_progress == 0


def test_a_failure_before_the_answer_is_the_servers_500(tier):
    """It is made outside of the middleware, and counts all the same."""

    async def fail(_, __):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        pass_through(tier, fail)
    found = samples(tier)
    assert found["requests_total", "POST", "/route", "500"] == 1
    assert found["errors_total", "internal", "/route"] == 1


def test_a_client_that_leaves_before_the_answer_has_nginxs_number(tier):
    """Nothing was sent, and nothing failed."""

    async def nothing(_, __): ...

    pass_through(tier, nothing)
    assert samples(tier)["requests_total", "POST", "/route", "499"] == 1


def test_errors_are_counted_by_code_and_route_and_known_ones_are_zero_before(tier):
    """A rate needs its zero. However many codes somebody sends, they do not fill the memory."""

    def noting(code):
        async def app(scope, send):
            tier.traffic.note_error(scope, code)
            await send(HEAD)
            await send(END)

        return app

    page = generate_latest(tier.registry).decode()
    for route in ("/route", "/other"):
        assert f'huginn_{tier.name}_errors_total{{code="known",route="{route}"}} 0.0' in page
    for code in ["known", "known", *map(str, range(300))]:
        pass_through(tier, noting(code))
    pass_through(tier, noting("known"), route="/other")
    pass_through(tier, noting("299"), route="/other")
    pass_through(tier, noting("known"), route=None)
    found = samples(tier)
    assert [found["errors_total", "known", route] for route in ("/route", "/other", "none")] == [2, 1, 1]
    assert found["errors_total", "other", "/other"] == 1
    assert len({code for code, _ in tier.counters.errors}) < 150
    assert sum(tier.counters.errors.values()) == 305


def test_a_path_or_a_method_of_the_clients_own_is_no_label(tier):
    """Or anybody could make as many series as he likes."""

    async def app(_, send):
        await send(HEAD)
        await send(END)

    pass_through(tier, app, method="BREW", route=None)
    assert samples(tier)["requests_total", "OTHER", "none", "200"] == 1


def get(address, path, method="GET"):
    return httpx.request(method, f"{address}{path}", timeout=30, trust_env=False)


@pytest.mark.parametrize(
    ("name", "asked", "route", "status", "code"),
    [
        ("backend", "/api/llm/models", "/api/llm/models", 503, "llm_unavailable"),
        ("backend", "/models/any/v1/models", "/v1/models", 503, "llm_unavailable"),
        ("backend", "/nowhere", "none", 404, "not_found"),
        ("frontend", "/api/llm/models", "/api/llm/models", 502, "backend_unavailable"),
        ("frontend", "/static/any/none.js", "/static/{digest}/{name}", 404, "not_found"),
        ("frontend", "/", "/", 200, None),
    ],
)
def test_prometheus_scrapes_what_a_real_tier_answers(name, asked, route, status, code):
    """By the route as it is written in the code, on a port of its own."""
    port = unused_port()
    build_app = import_module(f"functions.{name}.app").build_app
    with serve(build_app(SETTINGS[name](metrics_port=port, metrics_host="127.0.0.1"))) as address:
        assert get(address, asked).status_code == status
        counted = [f'huginn_{name}_requests_total{{method="GET",route="{route}",status="{status}"}} 1.0']
        errors = [f'huginn_{name}_errors_total{{code="{code}",route="{route}"}} 1.0'] if code else []
        deadline, page = time.monotonic() + 30, ""
        # An answer is counted after its last byte.
        while not {*counted, *errors} <= {*page.splitlines()}:
            assert time.monotonic() < deadline, page
            page = get(f"http://127.0.0.1:{port}", "/metrics").text
    lines = page.splitlines()
    assert [
        line for line in lines if line.startswith(f"huginn_{name}_errors_total") and line.endswith(" 1.0")
    ] == errors
    assert {"process_cpu_seconds", "process_resident_memory_bytes", f"huginn_{name}_build_info"} <= {
        family.name for family in text_string_to_metric_families(page)
    }


@pytest.mark.parametrize("name", MODULES)
def test_without_a_port_nothing_of_prometheus_is_imported(name):
    """And on AWS Lambda there is no port, whatever the environment says; elsewhere the port is served."""
    script = f"""
import asyncio, json, sys
from functions.{name}.handler import app
async def start():
    async with app.router.lifespan_context(app):
        return "prometheus_client" in sys.modules
print(json.dumps(asyncio.run(start())))
"""
    told = {"METRICS_PORT": str(unused_port()), "METRICS_HOST": "127.0.0.1"}
    environments = [{}, told | {"AWS_LAMBDA_FUNCTION_NAME": name}, told]
    found = []
    for environ in environments:
        run = subprocess.run(
            [sys.executable, "-c", script],
            cwd=REPOSITORY,
            env={
                "PATH": "/usr/bin:/bin",
                "PYTHONPATH": str(REPOSITORY),
                "HUGINN_HOST": "127.0.0.1",
                "HUGINN_AUTH": "off",
            }
            | environ,
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(json.loads(run.stdout.splitlines()[-1]))
    assert found == [False, False, True]


@pytest.mark.parametrize("name", MODULES)
def test_a_taken_port_is_named_with_the_way_out(name):
    """At the start, where somebody reads it."""
    metrics = import_module(MODULES[name][1])
    traffic = import_module(MODULES[name][0]).Traffic()
    with serve(None) as address:
        port = int(address.rpartition(":")[2])
        server = metrics.MetricsServer(metrics.registry_of(traffic), "127.0.0.1", port)
        with pytest.raises(metrics.MetricsPortTakenError, match=f"127.0.0.1:{port} .*METRICS_PORT"), server:
            pass


@pytest.fixture(params=[*MODULES, "llm"])
def metrics_port(request):
    """Where a tier answers who scrapes it."""
    metrics, port = import_module(f"functions.{request.param}.metrics"), unused_port()
    if request.param == "llm":
        told = metrics.Metrics()
    else:
        told = metrics.registry_of(import_module(MODULES[request.param][0]).Traffic())
    with metrics.MetricsServer(told, "127.0.0.1", port):
        yield port


def reset_connection(port, said):
    """As a scraper's that is killed."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(said)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def logged(caplog):
    """What there is in the log of a metrics server, at last."""
    deadline = time.monotonic() + 30
    while not (records := [each for each in caplog.records if each.name.endswith(".metrics")]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return records


def test_a_scrape_that_is_broken_off_is_a_line_for_who_looks_closely(metrics_port, caplog, capfd):
    """And no traceback between the lines of the log; whoever asks next is answered."""
    caplog.set_level(logging.DEBUG, logger="functions")
    reset_connection(metrics_port, b"GET /metr")
    assert {(record.levelname, record.exc_info) for record in logged(caplog)} == {("DEBUG", None)}
    assert httpx.get(f"http://127.0.0.1:{metrics_port}/metrics").status_code == 200
    assert capfd.readouterr() == ("", "")


def test_a_scrape_that_fails_by_our_own_fault_is_an_error_of_the_log(metrics_port, caplog, capfd, monkeypatch):
    """With its traceback, as a field of the line."""

    def fail(*_):
        raise RuntimeError("nevermore")

    monkeypatch.setattr(socketserver.BaseServer, "finish_request", fail)
    reset_connection(metrics_port, b"")
    [record] = logged(caplog)
    assert (record.levelname, str(record.exc_info[1])) == ("ERROR", "nevermore")
    assert capfd.readouterr() == ("", "")
