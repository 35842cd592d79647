"""`huginn up` as it is: real tiers, real sockets, real signals."""

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.cli import main
from local.ports import LISTENERS
from tests.local.huginn_up import STARTS_WITHIN_S, Up, get, wait_until_gone
from tests.otlp_collector import collected, spans_of

NAMED = {"x-request-id": "raven-1", "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}


@pytest.fixture
def start(tiny_checkpoint, free_ports) -> Iterator:
    """Start `huginn up` on free ports; ended after the test."""
    started = []

    def start_up(*arguments: str, checkpoint: Path = tiny_checkpoint, **ports: int) -> Up:
        started.append(Up(checkpoint, {**free_ports, **ports}, *arguments))
        return started[-1]

    yield start_up
    for up in started:
        up.close()


def expect_one_trace(capsys) -> None:
    """`huginn logs` shows the request in all three tiers, in one trace, and nothing that was written."""
    deadline = time.monotonic() + STARTS_WITHIN_S
    lines: list[dict] = []
    while len(lines) < 3:
        assert time.monotonic() < deadline, lines
        assert main(["logs", "--request-id", NAMED["x-request-id"], "--json"]) == 0
        out = capsys.readouterr().out
        lines = [line for line in map(json.loads, out.splitlines()) if line.get("event") == "request"]
    found = {line["tier"]: line for line in lines}
    assert set(found) == {"frontend", "backend", "llm"}
    assert {line["trace_id"] for line in lines} == {NAMED["traceparent"].split("-")[1]}
    assert len({line["span_id"] for line in lines}) == 3
    assert {line["status"] for line in lines} == {200}
    assert [found[tier]["tokens"] for tier in ("backend", "llm")] == [4096, 4096]
    assert "ROMEO" not in out


@pytest.fixture
def collector(monkeypatch):
    """What the tiers send as spans."""
    with collected() as (address, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{address}/v1/traces")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield received


def expect_nested_spans(collector) -> None:
    """Page, API and model: each tier's span within the one of who asked it, and the model's tells its moments."""
    deadline = time.monotonic() + STARTS_WITHIN_S
    trace = NAMED["traceparent"].split("-")[1]
    while len(spans := [span for span in spans_of(collector) if span.trace_id.hex() == trace]) < 3:
        assert time.monotonic() < deadline, spans
        time.sleep(0.05)
    parents = {span.parent_span_id.hex(): span for span in spans}
    chain = [parents[NAMED["traceparent"].split("-")[2]]]
    while len(chain) < 3:
        chain.append(parents[chain[-1].span_id.hex()])
    assert [span.name for span in chain] == ["POST /api/llm/stream", "POST /api/llm/stream", "POST /generate/stream"]
    moments = {event.name: event.time_unix_nano for event in chain[2].events}
    assert list(moments) == ["prefill", "first token", "last token"]
    assert sorted(moments.values()) == list(moments.values())
    assert chain[2].start_time_unix_nano <= moments["prefill"]
    assert moments["last token"] <= chain[2].end_time_unix_nano


def test_everything_answers_and_ctrl_c_leaves_nothing(collector, start, capsys):
    """The page, the API, the model, the metrics and the printed command; a stream comes in pieces; all ends with 0."""
    up = start()
    up.wait_until_ready()
    ports = up.ports

    said = "".join(up.out)
    for port in ports.values():
        assert f"http://127.0.0.1:{port}" in said

    status, page = get(ports["page"], "/")
    assert (status, b"<html" in page) == (200, True)
    assert get(ports["api"], "/readyz")[0] == 200
    assert json.loads(get(ports["llm"], "/models")[1])["models"][0]["name"] == "tiny"

    # As the page asks: through all three tiers, so that any of them could hold the stream back.
    connection = http.client.HTTPConnection("127.0.0.1", ports["page"], timeout=30)
    body = json.dumps({"prompt": "ROMEO:", "max_tokens": 4096, "seed": 1})
    connection.request("POST", "/api/llm/stream", body, {"content-type": "application/json", **NAMED})
    response = connection.getresponse()
    assert response.status == 200
    pieces = list(iter(lambda: response.read1(65536), b""))
    connection.close()
    assert len(pieces) >= 3
    assert b"".join(pieces).decode("utf-8")

    status, metrics = get(ports["metrics"], "/metrics")
    assert status == 200
    assert re.search(rb"^huginn_llm_generated_tokens_total 4096\.0", metrics, re.MULTILINE)

    command = next(line for line in up.out if line.strip().startswith("curl"))
    printed = subprocess.run(["sh", "-c", command], capture_output=True, timeout=60, check=False)
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.decode("utf-8").strip()

    expect_one_trace(capsys)
    expect_nested_spans(collector)

    pids = up.tier_pids()
    assert set(pids) == {"llm", "backend", "frontend"}
    os.killpg(up.process.pid, signal.SIGINT)
    assert up.wait_for_end() == 0
    wait_until_gone(pids)
    assert "Traceback" not in "".join(up.err)


def test_a_stream_that_is_being_read_does_not_hold_up_the_end(start):
    """SIGTERM with an answer under way: all ends in time, and the reader is not left waiting."""
    up = start()
    up.wait_until_ready()
    connection = http.client.HTTPConnection("127.0.0.1", up.ports["page"], timeout=30)
    body = json.dumps({"prompt": "ROMEO:", "max_tokens": 4096, "ignore_eos": True})
    connection.request("POST", "/api/llm/stream", body, {"content-type": "application/json"})
    response = connection.getresponse()
    assert response.read1(1)
    pids = up.tier_pids()
    up.process.send_signal(signal.SIGTERM)
    assert up.wait_for_end() == 0
    wait_until_gone(pids)
    connection.close()


@pytest.mark.parametrize("tier", ["llm", "backend", "frontend"])
def test_one_tier_dying_ends_the_others_with_a_message(start, tier):
    """It says which one died and how, with exit code 1; before all are ready as after."""
    up = start()
    pids = up.wait_until_started()
    if tier == "llm":
        up.wait_until_ready()
    os.kill(pids[tier], signal.SIGKILL)
    assert up.wait_for_end() == 1
    assert f"huginn: {tier} was killed by SIGKILL" in "".join(up.err)
    wait_until_gone(pids)


def test_our_own_violent_death_leaves_nothing(start):
    """Nobody is there to stop the tiers, and they end all the same."""
    up = start()
    up.wait_until_ready()
    pids = up.tier_pids()
    assert len(pids) == 3
    up.process.kill()
    wait_until_gone(pids)


def test_ctrl_c_while_starting_leaves_nothing(start):
    """Before anything has answered."""
    up = start()
    pids = up.wait_until_started()
    os.killpg(up.process.pid, signal.SIGINT)
    assert up.wait_for_end() == 0
    wait_until_gone(pids)
    assert up.out == []


@pytest.mark.parametrize("listener", LISTENERS, ids=lambda listener: listener.name)
def test_a_taken_port_is_named_before_anything_starts(start, taken_port, listener):
    """With the flag and the variable that move it; exit code 4."""
    up = start(**{listener.name: taken_port})
    assert up.wait_for_end(30) == 4
    said = "".join(up.err)
    assert f"huginn: port {taken_port}, where {listener.name} is to listen, is taken" in said
    assert listener.option in said
    assert listener.variable in said
    assert up.out == []


def test_a_missing_checkpoint_is_named(start, tmp_path):
    """Bad input, exit code 3, with the way to another one."""
    up = start(checkpoint=tmp_path / "nothing")
    assert up.wait_for_end(30) == 3
    assert f"there is no checkpoint at {tmp_path / 'nothing'}" in "".join(up.err)
    assert "--ckpt" in "".join(up.err)


def test_a_damaged_checkpoint_is_told(start, tiny_checkpoint, tmp_path):
    """Not by waiting for a model that will never be there; exit code 3, as for every bad input."""
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_checkpoint, damaged)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    up = start(checkpoint=damaged)
    assert up.wait_for_end(STARTS_WITHIN_S) == 3
    said = "".join(up.err)
    assert "huginn: llm ended with exit code 3" in said
    assert str(weights) in said
    assert "Traceback" not in said


def test_a_setting_that_is_not_understood_is_told(start, monkeypatch):
    """The tier that refuses it is named, with its words and its exit code, and the others do not stay."""
    monkeypatch.setenv("MAX_PROMPT_CHARS", "many")
    up = start()
    assert up.wait_for_end(STARTS_WITHIN_S) == 2
    said = "".join(up.err)
    assert "huginn: backend ended with exit code 2" in said
    assert "MAX_PROMPT_CHARS" in said
    assert "Traceback" not in said
