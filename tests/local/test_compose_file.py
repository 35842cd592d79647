"""compose.yml, read: what every container is denied, and what is published where. Running it needs an engine."""

import re
from pathlib import Path

import pytest
import yaml

from local.ports import LISTENERS

REPOSITORY = Path(__file__).parents[2]
LOCAL = REPOSITORY / "local"
TEXT = (LOCAL / "compose.yml").read_text("utf-8")
COMPOSE = yaml.safe_load(TEXT)
SERVICES = COMPOSE["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_no_container_may_more_than_it_must(name):
    """A read-only root, no capability and none to be had, limits for memory and processes, and an end in time."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"] <= 1024
    assert service["stop_grace_period"] == "10s"
    assert "privileged" not in service
    assert "cap_add" not in service


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_is_written_but_memory_of_known_size(name):
    """No volume that a container can write to: what is mounted is read-only, and a tmpfs says how large it may be."""
    service = SERVICES[name]
    assert "volumes" not in COMPOSE
    # `z`: SELinux lets the container read it.
    assert [volume for volume in service.get("volumes", []) if not volume.endswith(":ro,z")] == []
    size = r"(\d+[mg]|\$\{HUGINN_AWS_MEMORY:-1536m\})"
    assert all(re.search(rf":size={size},.*nosuid,nodev", tmpfs) for tmpfs in service["tmpfs"])


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_published_is_for_this_machine(name):
    """On the loopback; only who asks a caller who he is can be published elsewhere. And at a port that can be moved."""
    asks = "HUGINN_AUTH" in SERVICES[name].get("environment", {})
    host = r"\$\{HUGINN_BIND:-127\.0\.0\.1\}" if asks else r"127\.0\.0\.1"
    header = TEXT.partition("name: huginn\n")[0]
    for port in SERVICES[name].get("ports", []):
        found = re.fullmatch(host + r":\$\{(HUGINN_[A-Z_]+_PORT):-\d+\}:\d+", port)
        assert found
        # Docker says only that the port is taken.
        assert found[1] in header


def test_the_ports_are_those_of_huginn_up():
    """The page and the API have the same ports and are moved by the same variables; the model is for the API alone."""
    listeners = {listener.name: listener for listener in LISTENERS}
    for service, name in [("frontend", "page"), ("backend", "api")]:
        assert f"{{{listeners[name].variable}:-{listeners[name].default}}}" in SERVICES[service]["ports"][0]
    assert "ports" not in SERVICES["llm"]


def test_who_lets_others_in_is_told_what_that_needs():
    """Without SESSION_SECRET the tiers would not start."""
    header = " ".join(TEXT.partition("name: huginn\n")[0].replace("#", " ").split())
    assert "HUGINN_BIND=0.0.0.0" in header
    assert "export HUGINN_AUTH=on SESSION_SECRET=$(openssl rand -hex 32)" in header


def test_no_image_asks_a_registry_twice():
    """Bases by tag, ours built here: neither a digest nor a pull that an engine without a registry cannot answer."""
    images = {service["image"] for service in SERVICES.values()}
    assert all(re.fullmatch(r"huginn-\w+|(prom|grafana)/\w+:v?[\d.]+", image) for image in images)
    for service in SERVICES.values():
        assert service["image"].startswith("huginn-") == ("build" in service)
        # After a `git pull` what runs is not what was built before it.
        assert service.get("pull_policy") == ("build" if "build" in service else None)


def test_the_same_images_run_on_lambda():
    """Each tier once as a server and once by functions/runtime under the emulator: one image, another command."""
    for tier in ("frontend", "backend", "llm"):
        server, function = SERVICES[tier], SERVICES[f"{tier}-lambda"]
        assert (server["image"], server["build"]) == (function["image"], function["build"])
        assert "command" not in server
        assert function["command"][:3] == ["python", "-m", "local.emulator"]
        assert function["command"][-3:] == ["-m", "functions.runtime", f"functions.{tier}.handler.app"]
        assert function["profiles"] == ["lambda"]


def test_every_profile_is_an_addition():
    """What has no profile is the whole system; the others are named where the file explains itself."""
    assert {name for name, service in SERVICES.items() if "profiles" not in service} == {
        "frontend", "backend", "llm", "aws", "prometheus",
    }  # fmt: skip
    for profile in {profile for service in SERVICES.values() for profile in service.get("profiles", [])}:
        assert f"--profile {profile} up --wait" in TEXT


def test_prometheus_asks_every_tier():
    """By the services' names, so that a second model is found; and they listen where it asks."""
    scrape = yaml.safe_load((LOCAL / "prometheus" / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    for job in scrape:
        for found in job.get("dns_sd_configs", []):
            assert found["names"] == [job["job_name"]]
            assert SERVICES[job["job_name"]]["environment"]["METRICS_PORT"] == str(found["port"])
    assert {job["job_name"] for job in scrape} >= {"frontend", "backend", "llm"}


# These are the containers' own: where they listen and keep things, and who their neighbours are.
_COMPOSE_DECIDES = {"METRICS_HOST", "CACHE_PATH", "KEY_STORE", "LLM_AUTH", "AWS_REGION"}


@pytest.mark.parametrize(("service", "tier"), [("frontend", "page"), ("backend", "API"), ("llm", "model")])
@pytest.mark.parametrize("ending", ["", "-lambda"])
def test_what_the_readme_says_of_a_variable_holds_here_too(service, tier, ending):
    """One that is set when the containers are brought up reaches the tiers that read it, and is not dropped unsaid."""
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    table = readme.partition("\n## Configuration\n")[2].partition("\n\n`make up`")[0]
    rows = [row.split(" | ") for row in table.splitlines() if row.startswith("| `")]
    theirs = {
        name
        for variables, tiers, meaning in rows
        if tiers == "all" or tier in tiers.split(", ")
        for name in re.findall(r"`([A-Z][A-Z_]+)`", variables + ("".join(meaning) if "OTEL_" in variables else ""))
    }
    assert len(theirs) > 10
    assert theirs - _COMPOSE_DECIDES - set(SERVICES[service + ending]["environment"]) == set()
