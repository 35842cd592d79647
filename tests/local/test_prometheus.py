"""What Prometheus records and Grafana draws: valid, about metrics that there are, and answered by real ones."""

import asyncio
import json
import re
import shutil
import subprocess
import time
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path

import httpx
import pytest
import yaml

import functions.backend.app
import functions.frontend.app
from functions.backend.controllers.errors import STATUSES as BACKEND_STATUSES
from functions.backend.controllers.errors import known_codes as backend_codes
from functions.backend.controllers.traffic import UNROUTED
from functions.backend.controllers.traffic import Traffic as BackendTraffic
from functions.backend.domain.errors import TimeLimitReached
from functions.backend.metrics import registry_of as backend_registry
from functions.backend.settings import Settings as BackendSettings
from functions.frontend.metrics import registry_of as frontend_registry
from functions.frontend.settings import Settings as FrontendSettings
from functions.frontend.traffic import Traffic as FrontendTraffic
from functions.llm.app import build_app as build_llm
from functions.llm.controllers.errors import _TABLE as LLM_TABLE
from functions.llm.controllers.errors import known_codes as llm_codes
from functions.llm.metrics import Metrics, MetricsServer
from functions.llm.settings import Settings as LLMSettings
from tests.frontend.loopback import serve
from tests.unused_ports import unused_address, unused_port

REPOSITORY = Path(__file__).parents[2]
PROMETHEUS = REPOSITORY / "local" / "prometheus"
GRAFANA = REPOSITORY / "local" / "grafana"
UNIT_TESTS = Path(__file__).parent / "prometheus"
DASHBOARD = json.loads((GRAFANA / "dashboards" / "huginn.json").read_text("utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
PATIENCE_S = 60.0


def tool(name):
    """Where Prometheus's program is; without it the test is skipped, in CI a failure."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}, of Debian's package prometheus, on the PATH")
    return found


def promtool(*arguments):
    run = subprocess.run(
        [tool("promtool"), *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def as_prometheus_asks(expression):
    """The expression with Grafana's interval in it."""
    return expression.replace("$__rate_interval", "1m")


def rules():
    files = [yaml.safe_load(path.read_text("utf-8")) for path in sorted((PROMETHEUS / "rules").glob("*.yml"))]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def test_the_configuration_and_its_rules_are_valid():
    """By Prometheus's own word; and it does find the rules."""
    said = promtool("check", "config", PROMETHEUS / "prometheus.yml")
    assert "SUCCESS: 2 rule files found" in said


@pytest.mark.parametrize("name", sorted(path.name for path in UNIT_TESTS.glob("*.yml")))
def test_rules_compute_what_they_say(name):
    """On series whose answers are plain to see; alerts fire when they should, and not before."""
    promtool("test", "rules", UNIT_TESTS / name)


def test_every_alert_is_seen_to_fire():
    """An alert that no test has seen may never come."""
    tested = (UNIT_TESTS / "alerts_test.yml").read_text("utf-8")
    alerts = [rule["alert"] for rule in rules() if "alert" in rule]
    assert alerts
    assert [
        alert
        for alert in alerts
        if not re.search(rf'alertname: {alert}\n|"{alert}"[^\n]*alertstate="firing"|alertname="{alert}"', tested)
    ] == []


def test_a_failure_is_what_is_answered_with_a_5xx():
    """Whether it is answered or comes within a stream; and what is counted by its code is 0 before it happens.

    Not the time that the request itself allowed: a 504 as well, and nobody's failure.
    """
    (rule,) = [rule for rule in rules() if rule.get("record") == "huginn:failures:rate5m"]
    codes, _of_the_page = re.findall(r'code=~"([^"]*)"', rule["expr"])
    ours = {error.code for error, status in BACKEND_STATUSES.items() if status >= 500 and hasattr(error, "code")}
    models = {row.code for row in LLM_TABLE.values() if row.status >= 500}
    failures = (ours | models | {"internal"}) - {TimeLimitReached.code}
    assert {code for code in backend_codes() if re.fullmatch(codes, code)} == failures


def test_a_failure_of_the_page_is_one_that_the_backend_does_not_know_of():
    """What it passes on is counted there; and what its readers do wrong is nobody's failure."""
    (rule,) = [rule for rule in rules() if rule.get("record") == "huginn:failures:rate5m"]
    _of_the_backend, codes = re.findall(r'code=~"([^"]*)"', rule["expr"])
    (routes,) = re.findall(r'frontend_errors_total\{\s*route=~"([^"]*)"', rule["expr"])
    of_its_own = {"backend_timeout", "backend_unavailable", "internal", "not_ready"}
    assert {code for code in functions.frontend.app.KNOWN_CODES if re.fullmatch(codes, code)} == of_its_own
    asked = set(functions.frontend.app.COUNTED_ROUTES) - {"/session", UNROUTED}
    assert {path for path in functions.frontend.app.COUNTED_ROUTES if re.fullmatch(routes, path)} == asked


def test_requests_for_text_are_those_of_all_routes_that_give_it():
    """In rules and panels alike, and no other; where they may fail is counted from 0 on."""
    document = functions.backend.app.build_app(BackendSettings(llm_url=f"{unused_address()}/generate/stream")).openapi()
    counts_tokens = {"/tokenize", "/detokenize"}
    asked = {path for path, methods in document["paths"].items() if "post" in methods} - counts_tokens
    assert asked == set(functions.backend.app.COUNTED_ROUTES) - {UNROUTED}
    relayed = {path for path in asked if path.startswith("/api/")}
    assert relayed <= set(functions.frontend.app.COUNTED_ROUTES)
    paths = {*document["paths"], *counts_tokens, "/", "/static/{digest}/{name}", UNROUTED}
    chosen = [
        (tier, {path for path in paths if re.fullmatch(routes, path)})
        for expression in [*EXPRESSIONS, *(rule["expr"] for rule in rules())]
        for tier, routes in re.findall(r'huginn_(backend|frontend)_\w+\{[^}]*route=~"([^"]*)"', expression)
    ]
    assert len(chosen) == 7
    # The page's form asks at its own address; what the page relays is told apart from it by some.
    right = {"backend": [asked], "frontend": [relayed, relayed | {"/"}]}
    assert [found for found in chosen if found[1] not in right[found[0]]] == []


def test_every_code_of_a_refusal_is_zero_before_it_happens():
    """In both tiers: a rate sees nothing of a series that is born with its first burst."""
    settings = LLMSettings(metrics_port=0)
    status = asyncio.run(status_of(build_llm(settings)))
    assert {code: count for code, count in status["llm"]["requests"].items() if code in llm_codes()} == dict.fromkeys(
        llm_codes(), 0
    )
    assert "queue_full" in llm_codes()
    assert set(llm_codes()) <= set(backend_codes())


async def status_of(app):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://llm") as http:
        return (await http.get("/status")).json()


def test_every_expression_of_the_dashboard_parses(tmp_path):
    """By Prometheus's own parser, which reads rules."""
    records = [
        {"record": f"panel:{number}", "expr": as_prometheus_asks(expression)}
        for number, expression in enumerate(EXPRESSIONS)
    ]
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": records}]}), "utf-8")
    assert f"{len(EXPRESSIONS)} rules found" in promtool("check", "rules", file)


def test_rules_and_panels_name_only_metrics_that_there_are():
    """A metric that was renamed leaves no empty panel, and no alert that never fires, behind."""
    registries = [Metrics().registry, backend_registry(BackendTraffic()), frontend_registry(FrontendTraffic())]
    there = {"up", "ALERTS"} | {rule["record"] for rule in rules() if "record" in rule}
    for family in (family for registry in registries for family in registry.collect()):
        endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        there |= {family.name + ending for ending in endings}
    expressions = EXPRESSIONS + [rule["expr"] for rule in rules()]
    expressions.append(DASHBOARD["annotations"]["list"][0]["expr"])
    named = set(re.findall(r"\b(?:(?:huginn|process)_\w+|huginn:[\w:]+|up|ALERTS)\b", " ".join(expressions)))
    assert {"up", "huginn_llm_slots", "huginn:slots:used_ratio"} <= named
    assert named - there == set()


def test_the_dashboard_is_one_that_grafana_can_show():
    """Panels with numbers of their own that lie beside each other, on the data source that is provisioned."""
    (source,) = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text("utf-8"))[
        "datasources"
    ]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "huginn.yml").read_text("utf-8"))[
        "providers"
    ]
    wanted = {"type": source["type"], "uid": source["uid"]}
    assert all(panel["datasource"] == wanted for panel in PANELS)
    assert all(target["datasource"] == wanted for panel in PANELS for target in panel["targets"])
    assert all(panel["title"] and panel["description"] and panel["fieldConfig"]["defaults"]["unit"] for panel in PANELS)
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for one, other in combinations([panel["gridPos"] for panel in DASHBOARD["panels"]], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below
        assert one["x"] + one["w"] <= 24
    compose = (REPOSITORY / "local" / "compose.yml").read_text("utf-8")
    assert f"./grafana/dashboards:{provider['options']['path']}:ro,z" in compose
    assert "./grafana/provisioning:/etc/grafana/provisioning:ro,z" in compose
    assert f"DEFAULT_HOME_DASHBOARD_PATH: {provider['options']['path']}/huginn.json" in compose


def test_grafana_is_set_so_that_nothing_is_fetched():
    """No plugin, no news, no word to its makers; and it can write where it must, in memory.

    An empty value would be as if it were not set, and a version before 11.5 does not know them all.
    """
    service = yaml.safe_load((REPOSITORY / "local" / "compose.yml").read_text("utf-8"))["services"]["grafana"]
    environment = service["environment"]
    assert all(environment.values())
    assert environment["GF_PLUGINS_PREINSTALL_DISABLED"] == "true"
    for name in ("ANALYTICS_REPORTING_ENABLED", "ANALYTICS_CHECK_FOR_UPDATES", "ANALYTICS_CHECK_FOR_PLUGIN_UPDATES",
                 "NEWS_NEWS_FEED_ENABLED"):  # fmt: skip
        assert environment[f"GF_{name}"] == "false"
    version = tuple(map(int, service["image"].partition(":")[2].split(".")))
    assert version >= (11, 5)
    # The image's own user, and its group.
    assert any(tmpfs.startswith("/var/lib/grafana:") and "uid=472,gid=0" in tmpfs for tmpfs in service["tmpfs"])
    (source,) = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text("utf-8"))[
        "datasources"
    ]
    # By its name, and at the port inside; what is published is for people.
    assert source["url"] == "http://prometheus:9090"


TOKENS = 12
STREAM = b"".join(
    b'event: token\ndata: {"i":%d,"id":1,"text":"a"}\n\n' % position for position in range(6, 6 + TOKENS)
) + (
    b'event: done\ndata: {"finish_reason":"length","usage":{"prompt_tokens":6,"completion_tokens":%d,'
    b'"total_tokens":%d},"seed":1,"model":"m"}\n\n' % (TOKENS, 6 + TOKENS)
)
FULL = json.dumps({"error": {"code": "queue_full", "message": "full", "field": None, "retryable": True}}).encode()


class Model:
    """A model service that has seen every other prompt before, and is full for some; its metrics are real."""

    def __init__(self):
        self.metrics = Metrics(slots=16, max_queue=64, watts_per_cpu=3.5)
        self.requests = 0

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        more = True
        while more:
            more = (await receive()).get("more_body", False)
        self.requests += 1
        if self.requests % 3 == 0:
            self.metrics.refused("queue_full")
            await self._answer(send, 503, FULL, (b"content-type", b"application/json"), (b"retry-after", b"1"))
            return
        self.metrics.load_changed(waiting=1, active=2)
        self.metrics.prompt_looked_up(4 * (self.requests % 2))
        self.metrics.first_token(0.02)
        self.metrics.later_tokens(TOKENS - 1, 0.05)
        self.metrics.prompt_read(6 - 4 * (self.requests % 2))
        self.metrics.ended("length")
        await self._answer(send, 200, STREAM, (b"content-type", b"text/event-stream"))

    async def _answer(self, send, status, body, *headers):
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await send({"type": "http.response.body", "body": body})


@contextmanager
def system():
    """Page, API and a model service, each with its metrics; gives the page's address, the model and the ports."""
    ports = {name: unused_port() for name in ("frontend", "backend", "llm")}
    model = Model()
    scraped = {"metrics_host": "127.0.0.1"}
    with MetricsServer(model.metrics, "127.0.0.1", ports["llm"]), serve(model) as llm:
        settings = BackendSettings(llm_url=f"{llm}/generate/stream", metrics_port=ports["backend"], **scraped)
        with serve(functions.backend.app.build_app(settings)) as backend:
            settings = FrontendSettings(backend, metrics_port=ports["frontend"], **scraped)
            with serve(functions.frontend.app.build_app(settings)) as page:
                yield page, model, ports


@contextmanager
def prometheus(ports, folder):
    """Prometheus with its own configuration, but for the targets and for the time between two looks."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text("utf-8"))
    config["global"] = {"scrape_interval": "250ms", "evaluation_interval": "250ms"}
    config["scrape_configs"] = [job for job in config["scrape_configs"] if job["job_name"] in ports]
    assert {job["job_name"] for job in config["scrape_configs"]} == set(ports)
    for job in config["scrape_configs"]:
        (found,) = job.pop("dns_sd_configs")
        assert (found["names"], found["port"]) == ([job["job_name"]], 9108)
        job["static_configs"] = [{"targets": [f"127.0.0.1:{ports[job['job_name']]}"]}]
    shutil.copytree(PROMETHEUS / "rules", folder / "rules")
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), "utf-8")
    port = unused_port()
    process = subprocess.Popen(
        [
            tool("prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ],
        cwd=folder,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
            deadline = time.monotonic() + PATIENCE_S
            while not is_ready(client):
                assert process.poll() is None, "prometheus has ended; its log is above"
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield client
    finally:
        process.kill()
        process.wait()


def is_ready(client):
    try:
        return client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False


def answer_of(client, expression):
    response = client.post("/api/v1/query", data={"query": as_prometheus_asks(expression)}).json()
    assert response["status"] == "success", response
    return [float(series["value"][1]) for series in response["data"]["result"]]


def test_every_panel_and_every_recording_shows_something_when_there_is_something(tmp_path):
    """Through page and API to a model, scraped by Prometheus itself; and it counts the tokens that the reader got."""
    recorded = [rule["record"] for rule in rules() if "record" in rule]
    silent = dict.fromkeys([*EXPRESSIONS, *recorded])
    received = 0
    with system() as (page, model, ports), prometheus(ports, tmp_path) as client:
        deadline = time.monotonic() + PATIENCE_S
        while silent:
            assert time.monotonic() < deadline, f"nothing to see for {list(silent)}"
            for _ in range(3):
                asked = {"json": {"prompt": "ROMEO:"}, "headers": {"accept": "text/event-stream"}}
                received += httpx.post(f"{page}/api/llm/stream", **asked, timeout=30, trust_env=False).text.count(
                    "event: token"
                )
            httpx.get(f"{page}/nowhere", timeout=30, trust_env=False)
            time.sleep(0.3)
            silent = {expression: None for expression in silent if not answer_of(client, expression)}
        values = [value for expression in [*EXPRESSIONS, *recorded] for value in answer_of(client, expression)]
        assert all(0 <= value < float("inf") for value in values)

        targets = client.get("/api/v1/targets").json()["data"]["activeTargets"]
        assert {target["labels"]["job"]: target["health"] for target in targets} == dict.fromkeys(ports, "up")
        groups = client.get("/api/v1/rules").json()["data"]["groups"]
        assert {rule["name"]: rule["health"] for group in groups for rule in group["rules"]} == {
            rule.get("alert", rule.get("record")): "ok" for rule in rules()
        }
        while (counted := answer_of(client, "sum(huginn_llm_generated_tokens_total)")) != [received]:
            assert time.monotonic() < deadline, f"{counted} are counted of {received}"
            time.sleep(0.1)
    assert received == model.requests * 2 // 3 * TOKENS
