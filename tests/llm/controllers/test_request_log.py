"""What the model's log tells of a request."""

import json
import logging
import socket
import time

import pytest

ASK = {"prompt": "nevermore", "max_tokens": 3, "seed": 1, "ignore_eos": True}


@pytest.fixture
def told(caplog):
    """The fields of the requests' lines, once there are so many: an answer ends before it is told of."""
    caplog.set_level(logging.INFO, "functions.llm")

    def lines(count: int) -> list[dict]:
        deadline = time.monotonic() + 20
        while len(found := [record.fields for record in caplog.records if hasattr(record, "fields")]) < count:
            assert time.monotonic() < deadline, found
            time.sleep(0.01)
        return found

    return lines


def test_the_line_of_a_generation_tells_what_came_of_it(service, told):
    """Of a stream, a whole text and refusals; nothing that anybody wrote."""
    for count, (path, body) in enumerate(
        (("/generate/stream", ASK), ("/generate", ASK), ("/generate", {**ASK, "max_tokens": "nevermore"}), ("/no", {})),
        1,
    ):
        service.http.post(path, json=body)
        lines = told(count)
    for line in lines[:2]:
        assert (line["prompt_tokens"], line["tokens"], line["finish_reason"]) == (9, 3, "length")
        assert line["model"] == "tiny-char"
        assert 0 < line["first_token_ms"] <= line["duration_ms"]
        assert "error" not in line
    assert [(line["status"], line["error"]) for line in lines[2:]] == [(422, "invalid_request"), (404, "not_found")]
    assert "nevermore" not in json.dumps(lines)


def test_a_client_that_leaves_is_told(service, told):
    """Its generation was cancelled."""
    with service.stream(prompt="a", max_tokens=4000, ignore_eos=True) as response:
        next(response.iter_raw())
    [line] = told(1)
    assert line["finish_reason"] == "cancelled"
    assert "tokens" not in line


@pytest.mark.parametrize("whole", [True, False], ids=["waiting", "sending"])
def test_a_client_that_leaves_has_made_no_mistake(service, told, whole):
    """While it waits for its text, or before all of its request is there: it is no error, and counts as none."""
    before = refusals(service)
    body = json.dumps({"prompt": "a", "model": "slow", "max_tokens": 4096, "ignore_eos": True}).encode()
    head = b"POST /generate HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port)) as client:
        client.sendall(head % len(body) + (body if whole else body[:-1]))
        if whole:
            service.wait_for("huginn_llm_active_streams", 1)
    [line] = told(1)
    assert (line["status"], line.get("error")) == (499, None)
    assert refusals(service) == before


def refusals(service):
    """How many requests were answered with an error, by its code."""
    counts = service.http.get("/status").json()["llm"]["requests"]
    return {outcome: count for outcome, count in counts.items() if outcome not in ("stop", "length", "cancelled")}
