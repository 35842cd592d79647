"""What the model's log tells of a request."""

import json
import logging
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
