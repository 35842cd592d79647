"""`huginn keys`: what it makes is let in, what it takes back is not, and it says what it does."""

import argparse
import asyncio
import http.client
import json
import os
import re
import stat
import subprocess
import sys
import time

import pytest
import yaml

from functions.backend.adapters.key_stores import key_store_named
from functions.backend.domain.account import Place
from functions.backend.domain.key import id_of, matches
from functions.backend.domain.quota import NO_LIMITS
from functions.backend.domain.usage_total import UsageTotal
from local.access import access_environment, usual_key_store
from local.cli import main
from local.errors import CommandError
from local.keys import expiry
from local.ports import Ports
from local.readiness import why_not_ready
from local.tiers import TIERS, base_url, tier_environment
from local.up import announcement, readiness_urls, serve_command
from tests.backend.key_store_server import TABLE, dynamodb_server
from tests.local.huginn_up import REPOSITORY

OVERRIDDEN = ("compose.yml", "compose.keys.yml")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The store that is meant where none is named."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("KEY_STORE", raising=False)
    return f"sqlite:{tmp_path / 'huginn' / 'keys' / 'keys.sqlite'}"


@pytest.fixture
def huginn(capsys):
    """Runs `huginn keys`, and gives its exit code and what it said."""

    def run(*arguments):
        code = main(["keys", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def ask(store, method, *arguments, environ=None):
    async def work():
        opened = key_store_named(store, "us-east-1", environ or {})
        try:
            return await getattr(opened, method)(*arguments)
        finally:
            await opened.aclose()

    return asyncio.run(work())


def test_a_new_key_is_shown_once_and_kept_as_a_hash(store, huginn, tmp_path):
    """Alone on standard output; in the file, and in the list, nothing of it stands but its id."""
    code, out, err = huginn("new", "ravens")
    key = out.strip()
    assert (code, out) == (0, f"{key}\n")
    assert "only time that the key is shown" in err
    assert key not in err
    kept = ask(store, "find", id_of(key))
    assert (kept.name, kept.scopes, kept.quota, kept.expires) == ("ravens", {"generate"}, NO_LIMITS, None)
    assert matches(key, kept.digest)
    secret = key.split("_")[2].encode()
    assert not any(secret in path.read_bytes() for path in (tmp_path / "huginn" / "keys").iterdir())
    assert secret.decode() not in huginn("list")[1] + huginn("list", "--json")[1]


def test_what_a_key_may_is_what_was_asked_for(store, huginn):
    """Scopes, quotas and an end."""
    limits = ("--tokens-per-minute", "1000", "--tokens-per-day", "5000", "--concurrency", "2")
    _, out, _ = huginn("new", "the lab", "--scopes", "generate,admin", *limits, "--expires", "90d", "--json")
    told = json.loads(out)
    kept = ask(store, "find", told["id"])
    assert kept.scopes == {"generate", "admin"}
    assert (kept.quota.tokens_per_minute, kept.quota.tokens_per_day, kept.quota.concurrency) == (1000, 5000, 2)
    assert kept.expires == pytest.approx(kept.created + 90 * 86400, abs=1)
    assert matches(told["key"], kept.digest)


def test_the_list_tells_what_was_used(store, huginn):
    """By key, for people and for programs."""
    _, first, _ = huginn("new", "first")
    huginn("new", "second")
    place = Place.at(time.time(), "p", 10, 60)
    account = f"key:{id_of(first.strip())}"
    ask(store, "reserve", account, NO_LIMITS, place, time.time())
    ask(store, "settle", account, place, UsageTotal(1, 1500, 200, 500, 1.5, 2.25, 0.0000375), time.time())
    rows = json.loads(huginn("list", "--json")[1])["keys"]
    assert [row["name"] for row in rows] == ["first", "second"]
    assert (rows[0]["requests"], rows[0]["prompt_tokens"], rows[0]["cost_usd"]) == (1, 1500, 0.0000375)
    assert rows[1]["requests"] == 0
    head, line, _ = huginn("list")[1].splitlines()
    assert head.split()[:5] == ["ID", "NAME", "STATE", "SCOPES", "EXPIRES"]
    assert re.search(r"first +good +generate +never +- +- +- +1 +2,000 +1\.5 +\$0\.00003[78]$", line)


def test_a_revoked_key_is_told_as_such(store, huginn):
    """It stays in the list, for what it has used stays true."""
    _, key, _ = huginn("new", "ravens")
    code, _, err = huginn("revoke", id_of(key.strip()))
    assert (code, "is revoked" in err) == (0, True)
    [row] = json.loads(huginn("list", "--json")[1])["keys"]
    assert row["state"] == "revoked"
    code, _, err = huginn("revoke", "nobody00")
    assert code == 3
    assert "there is no key 'nobody00'" in err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["new", "x", "--scopes", "fly"], 2, "the scopes are fly"),
        (["new", "x", "--scopes", ""], 2, "the scopes are none"),
        (["new", ""], 2, "a key's name"),
        (["new", "x", "--concurrency", "0"], 2, "concurrency is 0"),
        (["new", "x", "--expires", "soon"], 2, "--expires is 'soon'"),
        (["new", "x", "--expires", "2020-01-01"], 2, "which is over"),
        (["list", "--store", "redis:6379"], 2, "names no store of keys"),
        (["list", "--store", "sqlite:/dev/null/keys.sqlite"], 4, "out of reach"),
        (["list", "--store", "sqlite:a", "--stage", "prod"], 2, "both name a store"),
    ],
)
def test_what_cannot_be_is_said(store, huginn, arguments, code, said):
    """With the reason, the next step, and the exit code of its class."""
    found, _, err = huginn(*arguments)
    assert found == code
    assert said in err
    assert "Traceback" not in err


def test_times_may_be_written_in_days_hours_or_as_a_date():
    """A date is one of UTC."""
    assert expiry(None, 0.0) is None
    assert expiry("2d", 100.0) == 100.0 + 2 * 86400
    assert expiry("12h", 0.0) == 43200
    assert expiry("2033-05-18", 0.0) == 1999987200
    assert expiry("2033-05-18T03:33:20+00:00", 0.0) == 2_000_000_000


def test_the_same_command_serves_the_cloud(huginn, monkeypatch, store):
    """A key made there is found by the backend there."""
    with dynamodb_server() as environ:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        code, out, _ = huginn("new", "ravens", "--store", f"dynamodb:{TABLE}")
        assert code == 0
        kept = ask(f"dynamodb:{TABLE}", "find", id_of(out.strip()), environ=environ)
        assert matches(out.strip(), kept.digest)
        assert json.loads(huginn("list", "--store", f"dynamodb:{TABLE}", "--json")[1])["keys"][0]["name"] == "ravens"


def test_this_machine_alone_needs_no_key(store, tmp_path):
    """Nothing is made for it."""
    for host in ("127.0.0.1", "localhost", "::1"):
        assert access_environment(host, os.environ) == {"HUGINN_HOST": host, "HUGINN_AUTH": "off"}
    assert not (tmp_path / "huginn").exists()


def test_others_need_one(store, tmp_path):
    """And what that needs is made once: a store of keys, and a secret that only its owner reads."""
    first = access_environment("0.0.0.0", os.environ)
    assert (first["HUGINN_AUTH"], first["HUGINN_HOST"], first["KEY_STORE"]) == ("on", "0.0.0.0", store)
    assert len(first["SESSION_SECRET"]) >= 32
    assert access_environment("0.0.0.0", os.environ) == first
    [path] = (tmp_path / "huginn").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_the_environment_says_stays(store):
    """But a public address is not made a private one by saying so."""
    said = {"HUGINN_AUTH": "on", "KEY_STORE": "sqlite:/k", "SESSION_SECRET": "s" * 32, "HUGINN_HOST": "example.org"}
    assert access_environment("127.0.0.1", said) == said
    assert access_environment("127.0.0.1", {**said, "HUGINN_AUTH": ""})["HUGINN_AUTH"] == "on"
    assert access_environment("0.0.0.0", {**said, "HUGINN_HOST": "127.0.0.1"})["HUGINN_HOST"] == "0.0.0.0"


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    """With what to set instead."""
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match="SESSION_SECRET"):
        access_environment("0.0.0.0", {"XDG_STATE_HOME": str(tmp_path / "file")})


def test_up_says_how_to_make_a_key(free_ports, tmp_path):
    """Where one is asked for, and only there."""
    ports = Ports(**free_ports)
    text = announcement("0.0.0.0", ports, tmp_path, with_keys=True)
    program = re.search(r"HUGINN_KEY=\$\((.*) keys new me\)", text)[1]
    keys_help = subprocess.run([program, "keys", "new", "--help"], capture_output=True, text=True, check=True)
    assert "--tokens-per-minute" in keys_help.stdout
    assert "keys" not in announcement("127.0.0.1", ports, tmp_path, with_keys=False)


@pytest.mark.parametrize(
    ("host", "inside"),
    [("0.0.0.0", "127.0.0.1"), ("10.0.0.7", "127.0.0.1"), ("::", "127.0.0.1"), ("::1", "::1"), ("localhost",) * 2],
)
def test_what_asks_nobody_for_a_key_stays_on_this_machine(free_ports, tmp_path, host, inside):
    """The model and its metrics: where they listen, where the others look for them, and what `huginn up` says."""
    ports, args = Ports(**free_ports), argparse.Namespace(host=host, verbose=False)
    listens = {tier.name: serve_command(tier, args, ports) for tier in TIERS}
    assert {name: command[command.index("--host") + 1] for name, command in listens.items()} == {
        "llm": inside,
        "backend": host,
        "frontend": host,
    }
    environment = tier_environment(host, ports, tmp_path)
    assert environment["METRICS_HOST"] == inside
    model, metrics = base_url(inside, ports.llm), base_url(inside, ports.metrics)
    assert environment["LLM_URL"].startswith(model)
    urls = readiness_urls(host, ports)
    assert (urls["llm"], urls["metrics"]) == (f"{model}/readyz", f"{metrics}/metrics")
    said = announcement(host, ports, tmp_path, with_keys=True)
    assert model in said
    assert metrics in said


def test_a_model_is_opened_to_the_network_by_saying_so(taken_port, capsys):
    """Not by an address alone: it asks nobody for a key."""
    command = ["serve", "llm", "--host", "0.0.0.0", "--llm-port", str(taken_port)]
    assert main(command) == 2
    assert "--open" in capsys.readouterr().err
    assert main([*command, "--open"]) == 4  # then it is about the port


def test_a_tier_that_asks_lets_the_key_of_the_command_in(store, huginn, free_ports):
    """`huginn serve` and `huginn keys` mean the same store; a key that is made while it serves is good at once."""
    port = free_ports["api"]
    process = subprocess.Popen(
        [sys.executable, "-m", "local.cli", "serve", "backend", "--api-port", str(port)],
        env={**os.environ, "HUGINN_AUTH": "on", "LLM_URL": "http://127.0.0.1:9/generate/stream"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while (reason := why_not_ready(f"http://127.0.0.1:{port}/livez")) is not None:
            assert time.monotonic() < deadline, reason
            assert process.poll() is None
            time.sleep(0.05)
        assert get(port, "/api/llm/models") == 401
        _, key, _ = huginn("new", "me")
        # Nobody writes the text: there is no model behind.
        assert get(port, "/api/llm/models", authorization=f"Bearer {key.strip()}") == 503
    finally:
        process.terminate()
        process.wait(20)


def get(port, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path, headers=headers)
    status = connection.getresponse().status
    connection.close()
    return status


def test_compose_s_override_is_about_what_compose_runs():
    """It changes services that are there, and says on in a way that YAML does not take for true."""
    whole, override = (yaml.safe_load((REPOSITORY / "local" / name).read_text()) for name in OVERRIDDEN)
    assert set(override["services"]) <= set(whole["services"])
    # All that let anybody ask: where quotas hold at one door, there is no other beside it.
    assert set(override["services"]) == {
        name for name, service in whole["services"].items() if "HUGINN_AUTH" in service.get("environment", {})
    }
    for service in override["services"]:
        environment = override["services"][service]["environment"]
        assert environment["HUGINN_AUTH"] == "on"
        assert set(environment) - {"KEY_STORE"} <= set(whole["services"][service]["environment"])
    backend = override["services"]["backend"]
    assert override["services"]["backend-lambda"] == backend
    # A number alone would be in the group of root.
    assert re.fullmatch(r"\$\{HUGINN_UID:\?.+\}:\$\{HUGINN_GID:\?.+\}", backend["user"])
    [volume] = backend["volumes"]
    assert usual_key_store({"XDG_STATE_HOME": "/state"}) == "sqlite:/state/huginn/keys/keys.sqlite"
    assert volume.endswith("/huginn/keys}:/keys:z")
