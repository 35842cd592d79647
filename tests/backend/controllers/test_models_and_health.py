"""What the backend tells about the model service and itself."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from functions.backend.settings import Settings
from tests.backend.conftest import PATIENCE_S

CARD = {
    "name": "muninn-char",
    "family": "mingru",
    "vocab_size": 65,
    "tokenizer": "char",
    "parameters": 2104321,
    "size_bytes": 8418000,
    "digest": "7d86",
    "default": True,
}


def test_models_are_relayed(backend, llm):
    """What the model service tells of its models, and no more than is documented."""
    llm.script = lambda exchange: exchange.answer({"models": [CARD | {"new": 1}, CARD | {"default": False}]})
    response = backend.get("/api/llm/models")
    assert response.json() == {"models": [CARD, CARD | {"default": False}]}
    assert response.headers["cache-control"] == "no-store"
    assert (llm.exchanges[0].method, llm.exchanges[0].path) == ("GET", "/models")


def test_models_of_nobody(backend_with, unused_url):
    """The same error as for a generation."""
    with backend_with(Settings(llm_url=unused_url)) as client:
        response = client.get("/api/llm/models")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "llm_unavailable")


def test_alive_whatever_the_model_service_does(backend_with, unused_url):
    """Restarting the backend would not bring the model service back."""
    with backend_with(Settings(llm_url=unused_url)) as client:
        response = client.get("/livez")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_ready_when_the_model_service_is(fresh, llm):
    """Ready means that a prompt would be answered."""
    llm.script = lambda exchange: exchange.answer({"status": "ready", "model": "m"})
    response = fresh.get("/readyz")
    assert (response.status_code, response.json()) == (200, {"status": "ready"})
    assert response.headers["cache-control"] == "no-store"
    assert llm.exchanges[0].path == "/readyz"


@pytest.mark.parametrize("there", [True, False], ids=["loading", "away"])
def test_not_ready_otherwise(backend_with, llm, unused_url, there):
    """503 with Retry-After, as a load balancer expects."""
    error = {"code": "not_ready", "message": "loading", "field": None, "retryable": True}
    llm.script = lambda exchange: exchange.answer({"error": error}, 503, retry_after="1")
    with backend_with(Settings(llm_url=llm.stream_url if there else unused_url)) as client:
        response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "not_ready"
    assert int(response.headers["retry-after"]) > 0


def test_many_who_ask_are_one_question(fresh, llm, signal, monkeypatch):
    """Anybody may ask, also all at once: the model service is asked no more often than by one."""
    monkeypatch.setattr("functions.backend.application.kept_answer.KEPT_S", PATIENCE_S)
    asked, may_answer = signal(), signal()

    async def answer_late(exchange):
        asked.give()
        await may_answer.wait()
        await exchange.answer({"status": "ready", "model": "m"})

    llm.script = answer_late
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(fresh.get, "/readyz") for _ in range(4)]
        assert asked.given()
        may_answer.give()
        assert [each.result(PATIENCE_S).status_code for each in waiting] == [200] * 4
    assert len(llm.exchanges) == 1


def test_a_model_service_that_goes_away_is_noticed(fresh, llm):
    """What was answered is not held for long."""
    llm.script = lambda exchange: exchange.answer({"status": "ready", "model": "m"})
    assert fresh.get("/readyz").status_code == 200
    llm.script = lambda exchange: exchange.answer({"error": {"code": "not_ready", "message": ""}}, 503)
    until = time.monotonic() + PATIENCE_S
    while fresh.get("/readyz").status_code == 200:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert len(llm.exchanges) == 2
