"""What the backend's log tells of a request, and the trace that goes on to the model service."""

import json
import logging
import time

import pytest

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
ASK = {"prompt": "nevermore", "max_tokens": 2}
HEADERS = {
    "x-request-id": "raven-1", "traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "raven=1",
    "accept": "text/event-stream", "authorization": "Bearer nevermore", "cookie": "nevermore=1",
}  # fmt: skip
TOKEN = b'event: token\ndata: {"i":6,"id":1,"text":"nevermore"}\n\n'
DONE = (
    b'event: done\ndata: {"finish_reason":"stop","usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10},'
    b'"seed":42,"model":"m"}\n\n'
)
FAILED = b'event: error\ndata: {"code":"queue_full","message":"nevermore","retryable":true}\n\n'


@pytest.fixture
def told(caplog):
    """The fields of the requests' lines, once there are so many: an answer ends before it is told of."""
    caplog.set_level(logging.INFO, "functions.backend")

    def lines(count: int) -> list[dict]:
        deadline = time.monotonic() + 20
        while len(found := [record.fields for record in caplog.records if hasattr(record, "fields")]) < count:
            assert time.monotonic() < deadline, found
            time.sleep(0.01)
        return found

    return lines


def test_the_line_of_a_generation_tells_what_came_of_it(backend, llm, told):
    """Of a stream, a whole text and a failure; nothing that anybody wrote, and no key."""
    frames = iter([TOKEN + DONE, TOKEN + DONE, TOKEN + FAILED])
    llm.script = lambda exchange: exchange.answer(next(frames))
    lines = []
    for path, body in (
        ("stream", ASK), ("generate", ASK), ("stream", ASK), ("stream?prompt=nevermore", {"prompt": 3}),
    ):  # fmt: skip
        backend.post(f"/api/llm/{path}", json=body, headers=HEADERS)
        lines = told(len(lines) + 1)
    assert [(line["path"].rpartition("/")[2], line["status"]) for line in lines] == [
        ("stream", 200), ("generate", 200), ("stream", 200), ("stream", 422),
    ]  # fmt: skip
    for line in lines[:2]:
        assert (line["model"], line["prompt_tokens"], line["tokens"], line["finish_reason"]) == ("m", 9, 1, "stop")
        assert "error" not in line
    assert [line["error"] for line in lines[2:]] == ["queue_full", "invalid_prompt"]
    assert "nevermore" not in json.dumps(lines)


def test_the_line_tells_what_was_asked(backend, told):
    """With the root of a model that it was asked under."""
    backend.post("/models/raven/v1/nowhere")
    [line] = told(1)
    assert line["path"] == "/models/raven/v1/nowhere"


def test_the_model_service_hears_of_our_span(fresh, llm):
    """The client's trace goes on, under a span that is neither the client's nor another request's."""
    llm.script = lambda exchange: exchange.answer(TOKEN + DONE)
    for _ in range(2):
        fresh.post("/api/llm/stream", json=ASK, headers=HEADERS)
    fresh.get("/readyz")
    parents = [exchange.headers["traceparent"].split("-") for exchange in llm.exchanges]
    assert [parent[1] == TRACE for parent in parents] == [True, True, False]
    assert len({SPAN, *(parent[2] for parent in parents)}) == 4
    assert [exchange.headers.get("tracestate") for exchange in llm.exchanges] == ["raven=1", "raven=1", None]
    assert llm.exchanges[0].headers["x-request-id"] == "raven-1"
