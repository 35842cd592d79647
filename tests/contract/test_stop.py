"""What a stop takes, in the worst case, is less than a container has before it is killed."""

import asyncio
import re
import threading
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from functions.llm import app, otlp
from functions.llm.app import build_app
from functions.llm.settings import Settings
from functions.llm.telemetry.spans import Spans
from local.serve import CLOSING_S

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60


@pytest.mark.parametrize("tier", ["frontend", "llm"])
def test_there_is_time_for_it(tier):
    """A stream to its last word, what is being compiled, and a collector that never answers."""
    telemetry_s = import_module(f"functions.{tier}.telemetry.spans")._STOP_S
    if tier == "llm":
        telemetry_s = app.STOP_WITHIN_S + max(telemetry_s, otlp._STOP_S)
    # uvicorn looks round for a tenth of a second first, and the metrics' server for half a one.
    closing_s = 0.1 + 0.5 + telemetry_s
    [grace] = re.findall(r'"--timeout-graceful-shutdown", "(\d+)"', (ROOT / f"functions/{tier}/Dockerfile").read_text())
    compose = yaml.safe_load((ROOT / "local/compose.yml").read_text("utf-8"))
    assert int(grace) + closing_s < int(compose["services"][tier]["stop_grace_period"].removesuffix("s"))
    assert closing_s < CLOSING_S


def test_the_last_spans_and_metrics_are_sent_side_by_side(monkeypatch, tmp_path):
    """Neither waits for the other's collector."""
    both = threading.Barrier(2)
    for sender in (Spans, otlp.OtlpExport):
        monkeypatch.setattr(sender, "stop", lambda _: both.wait(PATIENCE_S))
    monkeypatch.setattr(otlp.OtlpExport, "begin", lambda _: None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    app = build_app(Settings(tmp_path, metrics_port=0, traces=True, otlp=True))

    async def live():
        async with app.router.lifespan_context(app):
            pass

    asyncio.run(live())
    assert not both.broken
