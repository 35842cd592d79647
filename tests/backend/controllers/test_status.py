"""GET /api/status: all instances of the model service together, and what was asked here."""

import copy
import json
import time
from pathlib import Path

import pytest

from functions.backend.settings import Settings
from tests.backend.conftest import PATIENCE_S

GOLDEN = json.loads((Path(__file__).parents[2] / "contract" / "golden" / "status_llm.json").read_bytes())
TOKEN = b'event: token\ndata: {"i":6,"id":1,"text":" Ra"}\n\n'
ERROR = b'event: error\ndata: {"code":"deadline_exceeded","message":"late","retryable":true}\n\n'
ASKED = {"prompt": "ROMEO:"}


def test_the_page_is_told_what_the_instance_says(fresh, llm):
    """Under the same names, and how many there are."""
    llm.script = lambda exchange: exchange.answer(GOLDEN)
    response = fresh.get("/api/status")
    status = response.json()
    assert response.headers["cache-control"] == "no-store"
    assert (status["instances"], status["models"], status["llm"]) == (1, ["muninn-char"], GOLDEN["llm"])
    assert (llm.exchanges[0].method, llm.exchanges[0].path) == ("GET", "/status")
    assert llm.exchanges[0].headers["host"] == llm.url.removeprefix("http://")
    assert status["backend"] == {
        "requests": {"2xx": 0, "3xx": 0, "4xx": 0, "5xx": 0}, "errors": {}, "open_streams": 0
    }  # fmt: skip


def test_many_who_look_on_are_one_question(fresh, llm):
    """Within a second the instances are asked once."""
    llm.script = lambda exchange: exchange.answer(GOLDEN)
    assert [fresh.get("/api/status").json()["instances"] for _ in range(3)] == [1, 1, 1]
    assert len(llm.exchanges) == 1


def unreadable(status):
    return {"llm": {}}


def uncounted(status):
    status["llm"]["inter_token_s"]["counts"].pop()
    return status


@pytest.mark.parametrize("spoil", [unreadable, uncounted])
def test_a_service_that_says_something_else_is_as_good_as_away(fresh, llm, spoil, caplog):
    """The page draws what the backend knows; the log has the reason."""
    llm.script = lambda exchange: exchange.answer(spoil(copy.deepcopy(GOLDEN)))
    status = fresh.get("/api/status").json()
    assert (status["instances"], status["models"], status["llm"]) == (0, [], None)
    assert "a status we cannot read" in caplog.text


def test_a_service_that_is_away_is_null(backend_with, unused_url):
    """And no error: who looks on wants to see just that."""
    with backend_with(Settings(llm_url=unused_url)) as client:
        response = client.get("/api/status")
    assert response.status_code == 200
    assert (response.json()["instances"], response.json()["llm"]) == (0, None)


def test_a_host_that_is_not_known_is_null(backend_with):
    """As in compose before the other container is there."""
    with backend_with(Settings(llm_url="http://nobody.invalid:1/generate/stream")) as client:
        assert client.get("/api/status").json()["llm"] is None


def test_an_old_service_without_a_status_is_null(fresh, llm):
    """The two are rolled out one after the other."""
    llm.script = lambda exchange: exchange.answer({"error": {"code": "not_found", "message": ""}}, 404)
    assert fresh.get("/api/status").json()["llm"] is None


def test_what_is_asked_here_is_counted(fresh, llm):
    """By class and by code, whatever the route; an error that ends a stream counts, though its status was 200."""
    llm.script = lambda exchange: exchange.answer(TOKEN + ERROR)
    fresh.post("/api/llm/stream", json=ASKED, headers={"accept": "text/event-stream"})
    fresh.post("/api/llm/stream", json={"prompt": ""})
    fresh.post("/api/llm/generate", json={"prompt": ""})
    fresh.get("/nowhere")
    llm.script = lambda exchange: exchange.answer({"error": {"code": "x", "message": "y"}}, 500)
    fresh.post("/api/llm/generate", json=ASKED)
    expected = {
        "requests": {"2xx": 1, "3xx": 0, "4xx": 3, "5xx": 1},
        "errors": {"deadline_exceeded": 1, "invalid_prompt": 2, "not_found": 1, "llm_error": 1},
        "open_streams": 0,
    }
    deadline = time.monotonic() + PATIENCE_S
    # An answer is counted after its last byte.
    while (counted := fresh.get("/api/status").json()["backend"])["requests"] != expected["requests"]:
        assert time.monotonic() < deadline, counted
    assert counted == expected


def test_an_open_stream_is_counted_until_it_ends(fresh, llm, signal):
    """Whoever looks on sees how many read along now."""
    looked = signal()

    async def wait_in_the_middle(exchange):
        if exchange.path == "/status":
            await exchange.answer(GOLDEN)
            return
        await exchange.start()
        await exchange.send(TOKEN)
        await looked.wait()
        await exchange.send(ERROR)
        await exchange.end()

    llm.script = wait_in_the_middle
    with fresh.stream("POST", "/api/llm/stream", json=ASKED, headers={"accept": "text/event-stream"}) as response:
        chunks = response.iter_raw()
        next(chunks)
        assert fresh.get("/api/status").json()["backend"]["open_streams"] == 1
        looked.give()
        assert b"".join(chunks) == ERROR
    assert fresh.get("/api/status").json()["backend"]["open_streams"] == 0


def test_on_lambda_there_is_none(backend_with, llm):
    """The next answer would be another instance's."""
    with backend_with(Settings(llm_url=llm.stream_url, on_lambda=True)) as client:
        assert client.get("/api/status").status_code == 404
