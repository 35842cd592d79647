"""What is wrong is refused in words, and the service goes on."""

import json
import socket

import pytest

from functions.llm.controllers import request_body

JSON = {"content-type": "application/json"}


def refusal(response, status, code):
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["code"] == code
    assert error.keys() == {"code", "message", "field", "retryable"}
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    return error


@pytest.fixture(autouse=True)
def _still_serves(service):
    """After whatever a test sent, the next request is answered."""
    yield
    assert service.http.post("/generate", json={"prompt": "a", "max_tokens": 1}).status_code == 200


@pytest.fixture(params=["/generate", "/generate/stream"])
def path(request):
    return request.param


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b'{"prompt": "a"', b'{"prompt": \'a\'}', b'{"prompt": "\xff"}', b'{"prompt": "\xed\xa0\x80"}',
        b'{"prompt": "\\ud800"}', b"\xef\xbb\xbf{}", b"[" * 100_000, b'{"a":' * 100_000,
        b'{"prompt": ' + b"[" * 100_000,
        b'{"prompt": "a"} trailing',
    ],
    ids=["empty", "brace", "cut", "quotes", "utf-8", "utf-8 surrogate", "lone surrogate", "BOM", "deep list",
         "deep object", "deep prompt", "trailing"],
)  # fmt: skip
def test_what_is_no_json(service, path, body):
    """Empty, cut, not UTF-8, nested without end: 400."""
    error = refusal(service.http.post(path, content=body, headers=JSON), 400, "invalid_json")
    assert "not valid JSON" in error["message"]
    assert error["field"] is None


@pytest.mark.parametrize("body", ["[]", "null", "3", '"text"', "NaN"])
def test_json_that_is_no_object(service, path, body):
    """It is JSON, but nothing that can be asked."""
    error = refusal(service.http.post(path, content=body, headers=JSON), 422, "invalid_request")
    assert error["field"] is None


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ('"temperature": -0.1', "temperature"), ('"temperature": 10.1', "temperature"),
        ('"temperature": "1"', "temperature"), ('"temperature": null', "temperature"),
        ('"temperature": NaN', "temperature"), ('"temperature": Infinity', "temperature"),
        ('"temperature": 1e999', "temperature"), ('"temperature": true', "temperature"),
        ('"max_tokens": 0', "max_tokens"), ('"max_tokens": 4097', "max_tokens"), ('"max_tokens": 1.5', "max_tokens"),
        ('"max_tokens": 1e2', "max_tokens"), ('"max_tokens": true', "max_tokens"),
        ('"max_tokens": ' + "9" * 4000, "max_tokens"), ('"top_k": -1', "top_k"), ('"top_p": -0.1', "top_p"),
        ('"top_p": 1.1', "top_p"), ('"min_p": -0.1', "min_p"), ('"min_p": 2', "min_p"),
        ('"repetition_penalty": 0', "repetition_penalty"), ('"presence_penalty": 2.1', "presence_penalty"),
        ('"frequency_penalty": -2.1', "frequency_penalty"), ('"penalty_decay": 1.1', "penalty_decay"),
        ('"logit_bias": {"1": 101}', "logit_bias"), ('"logit_bias": {"a": 1}', "logit_bias"),
        ('"logit_bias": {"01": 1}', "logit_bias"), ('"logit_bias": {"32": 1}', "logit_bias"),
        ('"logit_bias": []', "logit_bias"), ('"stop": [""]', "stop"), ('"stop": ""', "stop"), ('"stop": [1]', "stop"),
        ('"stop": ' + json.dumps(["x"] * 17), "stop"), ('"stop_token_ids": [32]', "stop_token_ids"),
        ('"stop_token_ids": [-1]', "stop_token_ids"), ('"seed": -1', "seed"), ('"seed": 9223372036854775808', "seed"),
        ('"logprobs": 21', "logprobs"), ('"logprobs": -1', "logprobs"), ('"logprobs": true', "logprobs"),
        ('"echo": 1', "echo"), ('"ignore_eos": "no"', "ignore_eos"), ('"model": 3', "model"), ('"state": "x"', "state"),
        ('"Temperature": 1', "Temperature"),
    ],
)  # fmt: skip
def test_fields_out_of_range_and_unknown_ones_are_named(service, path, fields, named):
    """422, and the field that is to blame."""
    response = service.http.post(path, content='{"prompt": "a", %s}' % fields, headers=JSON)  # noqa: UP031
    error = refusal(response, 422, "invalid_request")
    assert error["field"] == named
    assert named in error["message"]
    assert len(error["message"]) < 500


@pytest.mark.parametrize(
    "prompt",
    ["", [], 3, None, True, {}, ["a"], [1.5], [True], [-1], [32], [2**40], "a" * 100_001],
    ids=lambda prompt: repr(prompt)[:20],
)
def test_prompts_that_are_none(service, path, prompt):
    """Empty, of a wrong type, outside the vocabulary, too long: the prompt is to blame."""
    error = refusal(service.http.post(path, json={"prompt": prompt}), 422, "invalid_prompt")
    assert error["field"] == "prompt"
    assert len(error["message"]) < 300


def test_no_prompt_at_all(service, path):
    """It is asked for, by an example."""
    error = refusal(service.http.post(path, json={}), 422, "invalid_prompt")
    assert error["message"] == 'prompt is missing. Send a JSON object such as {"prompt": "ROMEO:"}.'


@pytest.mark.parametrize("name", ["ghost", "", "../tiny-byte", "/etc", "..", "tiny-char/.", "x" * 200])
def test_unknown_models(service, path, name):
    """404, and what there is instead."""
    error = refusal(service.http.post(path, json={"prompt": "a", "model": name}), 404, "model_not_found")
    assert error["field"] == "model"
    assert "breaking, slow, tiny-byte, tiny-char" in error["message"]


def test_ten_megabytes(service, path):
    """413."""
    refusal(service.http.post(path, content=b"x" * 10_000_000, headers=JSON), 413, "body_too_large")


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_a_large_body_is_refused_before_it_is_sent(service, path, declared):
    """A declared length is answered before the first byte of the body, an undeclared one after the first megabyte."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        if declared:
            connection.sendall(f"{head}content-length: 10000000\r\n\r\n".encode())
        else:
            connection.sendall(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
            for _ in range(11):
                connection.sendall(b"186a0\r\n" + b"x" * 100_000 + b"\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_come(service, path, monkeypatch):
    """408, and then the connection is no more."""
    monkeypatch.setattr(request_body, "BODY_WITHIN_S", 0.1)
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.sendall(f"{head}content-length: 20\r\n\r\n{{".encode())
        with connection.makefile("rb") as answer:
            whole = answer.read()  # up to the end of the connection
    head, _, body = whole.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"\r\nconnection: close" in head
    assert json.loads(body)["error"]["code"] == "request_timeout"


@pytest.mark.parametrize("media_type", [None, "text/csv", "application/x-www-form-urlencoded", "text/plain"])
def test_bodies_that_are_said_to_be_something_else(service, path, media_type):
    """415: what curl sends without a header is not taken for JSON, and the message says which header to send."""
    headers = {} if media_type is None else {"content-type": media_type}
    response = service.http.post(path, content=b'{"prompt": "a"}', headers=headers)
    error = refusal(response, 415, "unsupported_media_type")
    assert "content-type: application/json" in error["message"]


@pytest.mark.parametrize("accept", ["image/png", "text/event-stream;q=0, text/plain;q=0", "*/*;q=0", "text/plain;q=x"])
def test_forms_that_there_are_not(service, accept):
    """406."""
    response = service.http.post("/generate/stream", json={"prompt": "a"}, headers={"accept": accept})
    refusal(response, 406, "not_acceptable")


def test_paths_and_methods_that_there_are_not(service):
    """404 and 405, as JSON like everything else."""
    refusal(service.http.get("/nowhere"), 404, "not_found")
    refusal(service.http.post("/generate/", json={"prompt": "a"}), 404, "not_found")
    response = service.http.get("/generate")
    refusal(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


def test_refusals_are_counted_by_code(service):
    """The metrics tell a broken client from a busy service."""
    prompt, form = ({"outcome": code} for code in ("invalid_prompt", "not_acceptable"))
    before = [service.metric("huginn_llm_requests_total", **labels) for labels in (prompt, form)]
    service.http.post("/generate", json={"prompt": ""})
    service.http.post("/generate/stream", json={"prompt": "a"}, headers={"accept": "image/png"})
    after = [service.metric("huginn_llm_requests_total", **labels) for labels in (prompt, form)]
    assert after == [count + 1 for count in before]


def test_what_json_allows_is_allowed(service):
    """A name given twice, white space, a charset, an int for a float, a bare stop string, -0."""
    body = b' \n{"prompt": "b", "prompt": "a", "temperature": 1, "stop": "\\n", "min_p": -0.0, "max_tokens": 1}\n'
    response = service.http.post("/generate", content=body, headers={"content-type": "Application/JSON; charset=utf-8"})
    assert response.status_code == 200
