"""The whole system in containers, by really running it: `make test-compose`, with Docker and Compose v2.

One stack for all tests, which stand in the order of its life: each leaves it well, and the last one takes it down.
"""

import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise, takewhile
from pathlib import Path

import httpx
import pytest

from tests.e2e.compose_stack import (
    BUILDS_WITHIN_S,
    LLM_TIMEOUT_S,
    PROJECT,
    REPOSITORY,
    Stack,
    make_checkpoints,
    wait_until,
)

pytestmark = pytest.mark.compose

SERVICES = ["frontend", "backend", "llm", "aws", "prometheus"]
# Many seconds on any machine.
LONG = {"model": "slow", "max_tokens": 4096, "ignore_eos": True}
MB = 1_000_000
# Over the base image.
MOST_MB = {"frontend": 120, "backend": 120, "llm": 480}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Everything that has no profile, built and healthy."""
    # Not pytest's folder, into which nobody but its owner may look.
    with tempfile.TemporaryDirectory(prefix="huginn-ckpts-") as folder:
        stack = Stack(make_checkpoints(Path(folder) / "ckpts"))
        stack.compose("build", within_s=BUILDS_WITHIN_S)
        stack.down()
        try:
            stack.up()
            wait_until(stack.is_well)
            yield stack
        finally:
            stack.down()


def test_the_page_answers(stack):
    """With words, and knows its model."""
    page = httpx.get(stack.url("PAGE"), timeout=30, trust_env=False)
    assert page.status_code == 200
    assert "Huginn" in page.text
    models = httpx.get(f"{stack.url('PAGE')}/api/llm/models", timeout=30, trust_env=False).json()["models"]
    assert {model["name"] for model in models} >= {"muninn-char", "slow"}


def test_tokens_come_one_by_one_and_prometheus_counts_them(stack):
    """Through page, API and model in at least ten chunks over time; the counter says how many tokens came."""
    counter = "sum(huginn_llm_generated_tokens_total)"
    # Who has just started is found within seconds, and asked within as many.
    wait_until(lambda: _all_up(stack) == {"frontend", "backend", "llm", "prometheus"})
    before = stack.sample("llm", "huginn_llm_generated_tokens_total")
    # What came before is known to it: it asks only every few seconds.
    wait_until(lambda: float(stack.query(counter)[0]["value"][1]) == before)
    arrivals, body = [], b""
    with httpx.stream(
        "POST", f"{stack.url('PAGE')}/api/llm/stream", json={"prompt": "ROMEO:", **LONG, "max_tokens": 256},
        headers={"accept": "text/event-stream"}, timeout=30, trust_env=False,
    ) as response:  # fmt: skip
        for chunk in response.iter_raw():
            arrivals.append(time.monotonic())
            body += chunk
    assert body.count(b"event: token\n") == 256
    assert body.split(b"event: ")[-1].startswith(b"done\n")
    # Separate: they were not kept back and let go together.
    assert sum(later - earlier > 0.001 for earlier, later in pairwise(arrivals)) >= 10
    wait_until(lambda: float(stack.query(counter)[0]["value"][1]) == before + 256)


def test_a_request_is_followed_through_all_containers(stack):
    """`huginn logs` has a line of it from each tier, in one trace."""
    body = {"prompt": "ROMEO:", "max_tokens": 8}
    asked = f"{stack.url('PAGE')}/api/llm/generate"
    httpx.post(asked, json=body, headers={"x-request-id": "raven-1"}, timeout=30, trust_env=False)
    logs = [sys.executable, "-m", "local.cli", "logs", "--compose", "--request-id", "raven-1", "--json"]

    def shown() -> list[dict]:
        run = subprocess.run(logs, cwd=REPOSITORY, env=stack.environ, capture_output=True, text=True, check=True)
        lines = map(json.loads, run.stdout.splitlines())
        return [line for line in lines if line.get("event") == "request"]

    lines = wait_until(lambda: found if len(found := shown()) >= 3 else None)
    assert sorted(line["tier"] for line in lines) == ["backend", "frontend", "llm"]
    assert len({line["trace_id"] for line in lines}) == 1


def _all_up(stack: Stack) -> set[str]:
    """The jobs, if all their targets are up."""
    targets = httpx.get(f"{stack.url('PROMETHEUS')}/api/v1/targets", timeout=30, trust_env=False).json()
    active = targets["data"]["activeTargets"]
    return {target["labels"]["job"] for target in active} if all(each["health"] == "up" for each in active) else set()


def test_prometheus_has_its_rules(stack):
    """Those of the folder, all of them evaluated without an error."""
    answer = httpx.get(f"{stack.url('PROMETHEUS')}/api/v1/rules", timeout=30, trust_env=False).json()
    files = {Path(group["file"]).name for group in answer["data"]["groups"]}
    assert files == {path.name for path in (REPOSITORY / "local" / "prometheus" / "rules").glob("*.yml")}
    rules = [rule for group in answer["data"]["groups"] for rule in group["rules"]]
    assert rules
    assert [rule["lastError"] for rule in rules if rule.get("lastError")] == []


@pytest.mark.parametrize("service", SERVICES)
def test_nothing_is_root_and_nothing_writes_outside_of_memory(stack, service):
    """As the kernel sees the first process and what it is shown of the disk; and by trying."""
    status = dict(line.split(":\t", 1) for line in stack.run_in(service, "cat", "/proc/1/status").splitlines())
    assert "0" not in status["Uid"].split()
    assert "0" not in status["Gid"].split()
    assert {int(status[f"Cap{which}"], 16) for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
    assert status["NoNewPrivs"] == "1"
    mounts = [line.split()[1:4] for line in stack.run_in(service, "cat", "/proc/1/mounts").splitlines()]
    kernels = {"tmpfs", "proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2"}
    assert [mount for mount in mounts if mount[1] not in kernels and "ro" not in mount[2].split(",")] == []
    folders = ["/", "/app", "/etc", "/home", "/opt/venv", "/usr/local/lib", "/var/tmp", "/ckpts", "/etc/prometheus"]
    attempt = "for folder in $0 $@; do touch $folder/written 2>/dev/null && echo $folder; done; true"
    assert stack.run_in(service, "sh", "-c", attempt, *folders) == ""
    assert stack.run_in(service, "sh", "-c", "touch /tmp/written 2>&1 || true").strip() in {"", _NO_TMP}
    limits = stack.inspect(service)["HostConfig"]
    assert limits["Memory"] > 0
    assert 0 < limits["PidsLimit"] <= 1024


_NO_TMP = "touch: cannot touch '/tmp/written': Read-only file system"


@pytest.mark.parametrize("tier", MOST_MB)
def test_images_are_small(stack, tier):
    """What a tier adds to the base image that it stands on."""
    base, ours = (
        json.loads(stack.docker("image", "inspect", name))[0]["Size"] for name in ("python:3.12-slim", f"huginn-{tier}")
    )
    assert (ours - base) / MB <= MOST_MB[tier]


def test_a_model_that_is_killed_is_told_of_and_comes_back(stack):
    """An error event within two seconds of its end; then a 503 that says when; and after `start` all is well."""
    with stack.stream("PAGE", **LONG) as events:
        assert next(events).name == "token"
        stack.compose("kill", "llm")
        *_, last = events
    assert (last.name, last.data["retryable"]) == ("error", True)
    killed = stack.inspect("llm")["State"]["FinishedAt"]
    assert last.at - datetime.fromisoformat(re.sub(r"(\.\d{6})\d*Z", r"\1+00:00", killed)).timestamp() < 2
    for listener in ("API", "PAGE"):
        refused = stack.post(listener)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
    stack.compose("start", "llm")
    wait_until(stack.is_well)


def test_a_model_that_is_paused_is_waited_for_only_so_long(stack):
    """What runs and what comes ends in the time-out's error, not in a hang; and after `unpause` all is well."""
    with stack.stream("PAGE", **LONG) as events:
        assert next(events).name == "token"
        stack.compose("pause", "llm")
        paused = time.time()
        *_, last = events
        began = time.monotonic()
        refused = stack.post("PAGE")
        took_s = time.monotonic() - began
        stack.compose("unpause", "llm")
    assert (last.name, last.data["code"]) == ("error", "llm_timeout")
    assert last.at - paused < LLM_TIMEOUT_S + 2
    assert (refused.status_code, refused.json()["error"]["code"]) == (504, "llm_timeout")
    assert took_s < LLM_TIMEOUT_S + 2
    wait_until(stack.is_well)
    # The engine, too, has found it silent, and asks again in a while.
    wait_until(lambda: stack.inspect("llm")["State"]["Health"]["Status"] == "healthy")


def test_who_stops_lets_streams_end_with_their_last_event(stack):
    """All tiers at once: a text that fits into the grace is written to its end, a longer one ends in an error event."""
    tiers = ["frontend", "backend", "llm"]
    containers = [stack.container(tier) for tier in tiers]
    stopping = threading.Thread(target=stack.docker, args=("stop", *containers))
    with stack.stream("PAGE", **LONG) as long, stack.stream("PAGE", **{**LONG, "max_tokens": 100}) as short:
        assert next(long).name == next(short).name == "token"
        began = time.monotonic()
        stopping.start()
        *_, end_of_short = short
        *_, end_of_long = long
        stopping.join()
        took_s = time.monotonic() - began
    assert (end_of_short.name, end_of_short.data["usage"]["completion_tokens"]) == ("done", 100)
    assert (end_of_long.name, end_of_long.data["retryable"]) == ("error", True)
    # Nobody had to be killed. (The engine's own work takes its time, too.)
    assert {tier: stack.inspect(tier)["State"]["ExitCode"] for tier in tiers} == dict.fromkeys(tiers, 0)
    assert took_s < 12
    stack.up()
    wait_until(stack.is_well)


def test_two_models_share_the_work(stack):
    """The backend finds both behind one name, and either answers."""
    stack.up("llm-2", profile="scale")
    name = "huginn_llm_requests_total"

    def answered() -> list[float]:
        assert stack.post(max_tokens=3).status_code == 200
        return [stack.sample("llm", name) - before, stack.sample("llm-2", name)]

    before = stack.sample("llm", name)
    wait_until(lambda: all(answered()), within_s=60)
    stack.compose("--profile", "scale", "rm", "--stop", "--force", "llm-2")
    wait_until(stack.is_well)


def test_the_same_images_stream_on_lambda(stack):
    """Three functions behind Function URLs, each by functions/runtime: the tokens still come one by one."""
    stack.up("frontend-lambda", profile="lambda")
    with stack.stream("LAMBDA_PAGE", **LONG, seed=1) as events:
        tokens = list(zip(range(64), takewhile(lambda event: event.name == "token", events), strict=False))
    arrivals = [event.at for _, event in tokens]
    assert len(arrivals) == 64
    assert len(set(arrivals)) > 10
    for tier in ("frontend", "backend", "llm"):
        assert stack.inspect(tier)["Image"] == stack.inspect(f"{tier}-lambda")["Image"]
    stack.compose("--profile", "lambda", "rm", "--stop", "--force", *(f"{tier}-lambda" for tier in MOST_MB))


def test_a_model_from_s3_is_the_same_model(stack):
    """The local AWS has the checkpoints in a bucket; the model that comes from there writes the same text."""
    asked = {"model": "muninn-char", "max_tokens": 40, "seed": 7}
    from_folder = stack.post(**asked).json()
    stack.up("llm", CKPT_PATH="s3://huginn-ckpts/muninn-char")
    assert "CKPT_PATH=s3://huginn-ckpts/muninn-char" in stack.inspect("llm")["Config"]["Env"]
    from_bucket = wait_until(lambda: (answer := stack.post(**asked)).status_code == 200 and answer.json())
    assert from_bucket["text"] == from_folder["text"]
    assert stack.run_in("llm", "find", "/tmp/ckpts", "-name", "model.safetensors").strip()


def test_the_gpu_is_an_override(stack):
    """It is valid on top of the file, and asks for a GPU and for jax[cuda12], for the model alone."""
    merged = json.loads(
        stack.docker("compose", "-f", "local/compose.yml", "-f", "local/compose.gpu.yml", "config", "--format", "json")
    )["services"]
    asking = {name for name, service in merged.items() if service.get("deploy", {}).get("resources")}
    assert asking == {"llm"}
    (device,) = merged["llm"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert merged["llm"]["build"]["args"]["ALSO"] == "gpu"


def test_down_leaves_nothing(stack):
    """No container, no network and no volume of the project."""
    stack.down()
    mine = ("--filter", f"label=com.docker.compose.project={PROJECT}", "--quiet")
    assert stack.docker("ps", "--all", *mine) == ""
    assert stack.docker("network", "ls", *mine) == ""
    assert stack.docker("volume", "ls", *mine) == ""
