"""Metrics in the log of AWS Lambda: what has happened since the line before, each thing once."""

import asyncio
import io
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.llm.emf import DECLARED, EmfLog, FlushAfterAnswer
from functions.llm.metrics import Metrics

REPOSITORY = Path(__file__).parents[2]


def log_of(metrics: Metrics) -> tuple[EmfLog, io.StringIO]:
    """A log, and what is in it."""
    written = io.StringIO()
    return EmfLog(metrics.registry, "huginn-llm", lambda: 1771286400.25, written.write), written


def lines(written: io.StringIO) -> list[dict]:
    """What was written, checked against the specification's rules."""
    found = [json.loads(line) for line in written.getvalue().splitlines()]
    for line in found:
        [directive] = line["_aws"]["CloudWatchMetrics"]
        assert line["_aws"]["Timestamp"] == 1771286400250
        assert (directive["Namespace"], directive["Dimensions"]) == ("Huginn", [["Function"]])
        assert line["Function"] == "huginn-llm"
        for metric in directive["Metrics"]:
            assert metric["Unit"] == DECLARED[metric["Name"]]
            value = line[metric["Name"]]
            values = value if isinstance(value, list) else [value]
            assert 1 <= len(values) <= 100
            assert all(isinstance(each, int | float) for each in values)
        assert {metric["Name"] for metric in directive["Metrics"]} == set(DECLARED) & set(line)
    return found


def test_an_invocation_is_one_line():
    """Its first token exactly, its tokens, its outcome; the rest of the registry beside them."""
    metrics = Metrics()
    log, written = log_of(metrics)
    metrics.first_token(0.0625)
    metrics.later_tokens(15, 0.030)
    metrics.prompt_read(7)
    metrics.ended("length")
    log.flush()
    [line] = lines(written)
    assert (line["TimeToFirstToken"], line["GeneratedTokens"], line["PromptTokens"]) == (62.5, 16, 7)
    assert (line["Requests"], line["FailedRequests"]) == (1, 0)
    assert line["huginn_llm_requests_total.length"] == 1
    assert line["process_resident_memory_bytes"] > 0
    assert not [name for name in line if "|" in name or "_created" in name or "_bucket" in name]


def test_nothing_is_told_twice_and_nothing_for_nothing():
    """The second line has what came since; a probe writes none."""
    metrics = Metrics()
    log, written = log_of(metrics)
    log.flush()
    assert written.getvalue() == ""
    metrics.first_token(0.5)
    metrics.ended("error")
    log.flush()
    log.flush()
    metrics.refused("queue_full")
    log.flush()
    first, second = lines(written)
    assert (first["FailedRequests"], first["TimeToFirstToken"]) == (1, 500)
    assert (second["Requests"], second["FailedRequests"]) == (1, 1)
    assert "TimeToFirstToken" not in second


@given(st.lists(st.floats(0, 100), min_size=1, max_size=120))
def test_several_first_tokens_are_not_faster_than_they_were(waits):
    """Those that share a line are told by their buckets' bounds: as many, each one's wait or more; but for the last."""
    metrics = Metrics()
    log, written = log_of(metrics)
    for wait in waits:
        metrics.first_token(wait)
    log.flush()
    [line] = lines(written)
    told = line["TimeToFirstToken"]
    if isinstance(told, list):
        assert len(told) == len(waits)
        below_the_last = [
            (1000 * wait, each) for wait, each in zip(sorted(waits), sorted(told), strict=True) if wait <= 60
        ]
        assert all(wait <= each + 1e-9 for wait, each in below_the_last)
    else:
        assert told == pytest.approx(1000 * sum(waits) / len(waits), abs=1e-3)


def test_invocations_at_once_lose_nothing():
    """Every token is in exactly one line."""
    metrics = Metrics()
    log, written = log_of(metrics)

    def invoke(_):
        metrics.first_token(0.01)
        metrics.later_tokens(9, 0.01)
        log.flush()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(invoke, range(200)))
    assert sum(line["GeneratedTokens"] for line in lines(written)) == 2000


def test_it_is_written_when_the_answer_is_complete():
    """Also when it has failed; and not for the life span."""
    said = []

    async def app(scope, receive, send):
        said.append("answer")
        if scope["type"] == "http":
            raise RuntimeError

    flushed = FlushAfterAnswer(app, lambda: said.append("flush"))
    with pytest.raises(RuntimeError):
        asyncio.run(flushed({"type": "http"}, None, None))
    asyncio.run(flushed({"type": "lifespan"}, None, None))
    assert said == ["answer", "flush", "answer"]


def test_it_is_written_when_the_time_is_up():
    """An answer that is cancelled, and whose end nobody waits for, has its line all the same."""
    said = []

    async def app(scope, receive, send):
        await asyncio.sleep(60)

    def flush():
        time.sleep(0.05)
        said.append("flush")

    async def run():
        answering = asyncio.create_task(FlushAfterAnswer(app, flush)({"type": "http"}, None, None))
        await asyncio.sleep(0)
        answering.cancel()
        await asyncio.sleep(0)
        assert said == ["flush"]

    asyncio.run(run())


def test_the_function_writes_its_line_on_lambda_and_nowhere_else(checkpoints_folder):
    """One invocation through the handler, its first token and its tokens; without Lambda's variable silence."""
    event = {
        "version": "2.0", "routeKey": "$default", "rawPath": "/generate", "rawQueryString": "",
        "headers": {"content-type": "application/json", "host": "x"},
        "requestContext": {"http": {"method": "POST", "path": "/generate", "sourceIp": "127.0.0.1",
                                    "protocol": "HTTP/1.1"}},
        "body": json.dumps({"prompt": "the raven", "max_tokens": 9}), "isBase64Encoded": False,
    }  # fmt: skip
    script = (
        "import asyncio\nasyncio.set_event_loop(asyncio.new_event_loop())\n"
        f"from functions.llm.handler import handler\nassert handler({event!r}, None)['statusCode'] == 200"
    )
    environ = {"CKPT_PATH": str(checkpoints_folder / "tiny-char"), "METRICS_PORT": "0", "LOG_LEVEL": "error"}
    environ["PATH"] = os.defpath
    said = [
        subprocess.run(
            [sys.executable, "-c", script], cwd=REPOSITORY, env={**environ, **extra}, capture_output=True, check=True
        ).stdout
        for extra in ({}, {"AWS_LAMBDA_FUNCTION_NAME": "mine"})
    ]
    assert said[0] == b""
    line = json.loads(said[1])
    assert (line["Function"], line["Requests"], line["FailedRequests"], line["GeneratedTokens"]) == ("mine", 1, 0, 9)
    assert line["TimeToFirstToken"] > 0
