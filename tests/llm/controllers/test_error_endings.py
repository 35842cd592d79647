"""However an answer ends in an error: its reader, the request's line in the log and the counter know it by one code."""

import asyncio
import logging
import time

import httpx
import pytest

from functions.llm.app import build_app
from functions.llm.inference.batch import Batch
from functions.llm.settings import Settings
from tests.asgi_exchange import exchange

LONG = {"prompt": "a", "max_tokens": 4096, "ignore_eos": True, "seed": 1}
EVENTS, PLAIN = {"accept": "text/event-stream"}, {"accept": "text/plain"}


@pytest.fixture(autouse=True)
def _no_chunk_is_made_at_once(monkeypatch):
    """So that no text is at its end before its trouble begins, on any machine."""
    advance = Batch.advance

    def slowly(*arguments, **named):
        time.sleep(0.02)
        return advance(*arguments, **named)

    monkeypatch.setattr(Batch, "advance", slowly)


async def counted(app):
    """How many requests ended, by how."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
        requests = (await http.get("/status")).json()["llm"]["requests"]
    return {outcome: count for outcome, count in requests.items() if count}


@pytest.mark.parametrize("headers", [EVENTS, PLAIN], ids=["events", "plain"])
@pytest.mark.parametrize(
    ("model", "troubles", "code", "outcome"),
    [
        ("slow", {"timeout": "0.3"}, "deadline_exceeded", "deadline"),
        ("breaking", {}, "internal", "error"),
        ("slow", {"trouble": "stalls"}, "slow_reader", "slow_reader"),
        ("slow", {"trouble": "stops"}, "not_ready", "not_ready"),
    ],
    ids=["deadline", "fault", "stalls", "stops"],
)
def test_the_model_s_stream(served_folder, caplog, headers, model, troubles, code, outcome):
    """Whose time is up, that breaks, that nobody reads, and that a stop cuts short; a text is then cut off."""
    caplog.set_level(logging.INFO, "functions.llm")
    patience_s = 0.5 if "stalls" in troubles.values() else 60.0
    app = build_app(Settings(served_folder / model, metrics_port=0, reader_timeout_s=patience_s))
    asked = "/generate/stream", LONG | {"prompt": "\0a"}, headers

    async def ask():
        async with app.router.lifespan_context(app):
            # Loading and compiling are another wait, with an answer of its own.
            await exchange(app, "/generate/stream", {"prompt": "a", "max_tokens": 1}, headers)
            before = await counted(app)
            caplog.clear()
            path, body, accept = asked
            told = {"x-huginn-timeout-s": troubles["timeout"]} if "timeout" in troubles else {}
            answer = await exchange(app, path, body, accept | told, troubles.get("trouble"), stalls_s=3 * patience_s)
            while (after := await counted(app)).keys() == before.keys():  # noqa: ASYNC110 - its thread counts it
                await asyncio.sleep(0.01)
            return answer, {outcome: count - before.get(outcome, 0) for outcome, count in after.items()}

    answer, ends = asyncio.run(asyncio.wait_for(ask(), 120))
    has_begun = answer.status == 200
    assert has_begun or code == "deadline_exceeded"  # before its first token, on a machine that is busy
    assert answer.cut_off == (has_begun and headers is PLAIN)
    if not answer.cut_off:
        assert answer.code == code
    assert {name: count for name, count in ends.items() if count} == {outcome: 1}
    lines = [record.fields for record in caplog.records if hasattr(record, "fields")]
    assert [line.get("error") for line in lines if line["path"] == "/generate/stream"] == [code]
    faults = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert bool(faults) == (code == "internal")
