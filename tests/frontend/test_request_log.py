"""What the frontend's log tells of a request, and the trace that goes on to the backend."""

import json
import logging
import time

import pytest

from tests.frontend.fake_backend import as_error, stream

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
HEADERS = {
    "x-request-id": "raven-1", "traceparent": f"00-{TRACE}-{SPAN}-01", "accept": "text/event-stream",
    "cookie": "nevermore=1",
}  # fmt: skip


@pytest.fixture
def told(caplog):
    """The fields of the requests' lines, once there are so many: an answer ends before it is told of."""
    caplog.set_level(logging.INFO, "functions.frontend")

    def lines(count: int) -> list[dict]:
        deadline = time.monotonic() + 20
        while len(found := [record.fields for record in caplog.records if hasattr(record, "fields")]) < count:
            assert time.monotonic() < deadline, found
            time.sleep(0.01)
        return found

    return lines


def test_the_line_of_a_request_tells_how_it_was_answered(backend, client, told):
    """A relayed stream, a form and what is not there; nothing that anybody wrote."""
    backend.scripts["/api/llm/stream"] = stream(["nevermore"])
    backend.scripts["/api/llm/generate"] = as_error(503, "queue_full", "nevermore", retryable=True)
    client.post("/api/llm/stream", json={"prompt": "nevermore"}, headers=HEADERS)
    told(1)
    client.post("/?text=nevermore", data={"prompt": "nevermore"}, headers=HEADERS)
    told(2)
    client.get("/nowhere", headers=HEADERS)
    lines = told(3)
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("POST", "/api/llm/stream", 200), ("POST", "/", 503), ("GET", "/nowhere", 404),
    ]  # fmt: skip
    assert [line.get("error") for line in lines] == [None, "queue_full", "not_found"]
    assert "nevermore" not in json.dumps(lines)


def test_the_backend_hears_of_our_span(backend, client):
    """By the relay and by the form: the reader's trace goes on, under a span of its own."""
    spans = {SPAN}
    for path, body in (("/api/llm/stream", {"json": {"prompt": "a"}}), ("/", {"data": {"prompt": "a"}})):
        client.post(path, headers=HEADERS, **body)
        version, trace, span, flags = backend.last.headers["traceparent"].split("-")
        assert (version, trace, flags) == ("00", TRACE, "01")
        assert backend.last.headers["x-request-id"] == "raven-1"
        spans.add(span)
    assert len(spans) == 3
