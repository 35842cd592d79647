"""Everything that is refused under /v1 is refused in OpenAI's shape, and says what to do."""

import json

import openai
import pytest

from functions.backend.settings import Settings
from tests.backend.controllers.openai.conftest import frames, says

COMPLETIONS = "/v1/completions"


def expect_error(response, status, code, param=None, kind="invalid_request_error"):
    """Check the one form of all errors."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json")
    assert response.headers["x-request-id"]
    assert response.headers["cache-control"] == "no-store"
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"], error["code"]) == (kind, param, code)
    assert len(error["message"]) > 20
    return error["message"]


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"prompt": ""}, "prompt", "empty"),
        ({"prompt": []}, "prompt", "empty"),
        ({"prompt": ["a", ""]}, "prompt", "empty"),
        ({"prompt": None}, "prompt", "must be text"),
        ({"prompt": ["a", 1]}, "prompt", "must be text"),
        ({"prompt": [True]}, "prompt", "whole numbers"),
        ({"prompt": [[1], "a"]}, "prompt", "must be text"),
        ({"prompt": [None, 5]}, "prompt", "custom_prefix_token_id"),
        ({"prompt": [-1]}, "prompt", "-1"),
        ({"prompt": ["a"] * 129}, "prompt", "128"),
        ({"prompt": [["x"]] * 129}, "prompt", "128"),
        ({"n": 0}, "n", "1 to 128"),
        ({"n": 2, "best_of": 1}, "best_of", "at least n"),
        ({"best_of": 2, "stream": True}, "best_of", "stream"),
        ({"suffix": "the end"}, "suffix", "do not fill in"),
        ({"stream": True, "stream_options": {"frames": 1}}, "stream_options", "extra"),
        ({"max_tokens": 5000}, "max_tokens", "4096"),
        ({"max_tokens": -1}, "max_tokens", "is -1; it must be between 0 and 4096"),
        ({"max_tokens": "8"}, "max_tokens", "integer"),
        ({"temperature": -0.1}, "temperature", "between"),
        ({"logit_bias": {"a": 1}}, "logit_bias", "pattern"),
        ({"logit_bias": {"1": 101}}, "logit_bias", "-100"),
        ({"stop": [""]}, "stop", "empty"),
        ({"stop": ["a"] * 17}, "stop", "16"),
        ({"stop_token_ids": [1] * 1001}, "stop_token_ids", "1000"),
        ({"logit_bias": dict.fromkeys(map(str, range(1001)), 1)}, "logit_bias", "1000"),
        ({"logprobs": 21}, "logprobs", "20"),
        ({"seed": -(2**63) - 1}, "seed", "between -9223372036854775808 and"),
        ({"seed": 2**63}, "seed", "9223372036854775807"),
        ({"max_token": 8}, "max_token", "max_tokens"),
    ],
)
def test_a_request_that_cannot_be_served(backend, llm, fields, param, said):
    """400, the field by name, and nothing reaches the model."""
    message = expect_error(
        backend.post(COMPLETIONS, json={"model": "m", "prompt": "a"} | fields),
        400,
        "invalid_request",
        param,
    )
    assert said in message
    assert llm.exchanges == []


def test_what_is_not_served_may_be_null(backend, llm):
    """Clients send null for what they leave out."""
    llm.script = says("x")
    body = {"model": "m", "prompt": "a", "suffix": None, "n": None, "stop": None, "stream": None, "logprobs": None}
    assert backend.post(COMPLETIONS, json=body).status_code == 200


def test_bodies_that_are_not_requests(backend):
    """Not JSON, not an object, not said to be JSON, too large."""
    as_json = {"content-type": "application/json"}
    expect_error(backend.post(COMPLETIONS, content=b"{", headers=as_json), 400, "invalid_json")
    expect_error(backend.post(COMPLETIONS, content=b"[]", headers=as_json), 400, "invalid_request")
    expect_error(backend.post(COMPLETIONS, json={}), 400, "invalid_request", "prompt")
    expect_error(backend.post(COMPLETIONS, content=b"a=b"), 415, "unsupported_media_type")
    expect_error(backend.post(COMPLETIONS, json={"prompt": "a" * 1_000_000}), 413, "body_too_large")


def test_paths_and_methods_that_are_not_there(backend):
    """404 and 405, with the methods that are."""
    expect_error(backend.get("/v1/nowhere"), 404, "not_found")
    for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS"):
        response = backend.request(method, COMPLETIONS)
        assert (response.status_code, response.headers["allow"]) == (405, "POST")
        if method != "HEAD":
            expect_error(response, 405, "method_not_allowed")
    assert backend.post("/v1/models").headers["allow"] == "GET"


def test_an_unknown_model(sdk, backend, llm):
    """404, as the SDK knows it, from the endpoint that tells of models and from those that write."""

    async def script(exchange):
        if exchange.path == "/models":
            await exchange.answer({"models": []})
        else:
            error = {"code": "model_not_found", "message": "There is no model 'ghost' here.", "field": "model"}
            await exchange.answer({"error": error}, status=404)

    llm.script = script
    for name in ("ghost", "org/ghost"):
        expect_error(backend.get(f"/v1/models/{name}"), 404, "model_not_found", "model")
    for stream in (False, True):
        with pytest.raises(openai.NotFoundError) as raised:
            sdk.completions.create(model="ghost", prompt="a", stream=stream)
        assert (raised.value.code, raised.value.param) == ("model_not_found", "model")


def test_a_busy_model_service(backend, llm):
    """503, and when to come back."""

    async def script(exchange):
        error = {"code": "queue_full", "message": "The queue is full: 64 requests wait already."}
        await exchange.answer({"error": error}, status=503, retry_after="3")

    llm.script = script
    response = backend.post(COMPLETIONS, json={"model": "m", "prompt": ["a", "b"]})
    expect_error(response, 503, "queue_full", kind="server_error")
    assert response.headers["retry-after"] == "3"


@pytest.mark.parametrize("before", [(), ("a",)])
@pytest.mark.parametrize("n", [1, 2])
def test_a_request_whose_time_was_up(backend, llm, before, n):
    """504, also where the model service said so in the middle of a text, and no client sends it again by itself.

    Whether it was the longest that any request may take, or what this one allowed.
    """
    given_up = (
        b'event: error\ndata: {"code":"deadline_exceeded","message":"Given up after 1.0 s.","retryable":true}\n\n'
    )
    llm.script = lambda exchange: exchange.answer(frames(*before, done=False) + given_up)
    body = {"model": "m", "prompt": "a", "n": n}
    response = backend.post(COMPLETIONS, json=body)
    assert expect_error(response, 504, "deadline_exceeded", kind="server_error") == "Given up after 1.0 s."
    own = backend.post(COMPLETIONS, json=body, headers={"x-huginn-timeout-s": "0.2"})
    assert expect_error(own, 504, "time_limit_reached", kind="server_error")
    for late in (response, own):
        assert late.headers["x-should-retry"] == "false"
    llm.exchanges.clear()
    counting = openai.OpenAI(base_url=f"{backend.base_url}/v1", api_key="none", max_retries=2)
    with counting as sdk, pytest.raises(openai.InternalServerError):
        sdk.completions.create(**body)
    # Requests, not texts: the second of two may be given up before the model service has heard of it.
    asked = {exchange.headers["x-request-id"] for exchange in llm.exchanges}
    assert len(asked) == 1


def test_what_only_the_model_service_can_refuse(backend, llm):
    """Content that cannot be served is a 400 here, whoever found it."""

    async def script(exchange):
        error = {"code": "invalid_prompt", "message": "prompt holds the token id 70.", "field": "prompt"}
        await exchange.answer({"error": error}, status=422)

    llm.script = script
    expect_error(backend.post(COMPLETIONS, json={"model": "m", "prompt": [70]}), 400, "invalid_request", "prompt")


LONG_IDS = {"prompt": [0] * 32_769}
LONG_TEXT = {"prompt": "a" * 100_001}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (LONG_IDS, "32768 tokens. However, the prompt has 32769 tokens"),
        ({"prompt": [[1], LONG_IDS["prompt"]]}, "32768 tokens"),
        ({"prompt": [None] * 32_769}, "32768 tokens"),
        (LONG_TEXT, "a text may have 100000 characters, and there are 100001"),
        ({"prompt": ["a", LONG_TEXT["prompt"]]}, "100000 characters"),
    ],
)
def test_a_prompt_that_is_too_long(backend, llm, fields, said):
    """The code and the words by which clients know it; nothing reaches the model."""
    answer = backend.post(COMPLETIONS, json={"model": "m"} | fields)
    message = expect_error(answer, 400, "context_length_exceeded", "prompt")
    assert message.startswith("This model's maximum context length is 32768 tokens")
    assert said in message
    assert llm.exchanges == llm.checks == []


def test_a_prompt_as_long_as_the_model_reads_is_asked_for(backend, llm):
    """Tokens are what limits it, and texts are the model service's to cut; /api/llm takes as many ids."""
    llm.script = says("x")
    for prompt in ([7] * 32_768, "a" * 32_768, "漢" * 100_000):
        assert backend.post(COMPLETIONS, json={"model": "m", "prompt": prompt}).status_code == 200
        assert json.loads(llm.exchanges[-1].body)["prompt"] == prompt
    assert backend.post("/api/llm/generate", json={"prompt": [7] * 32_768}).status_code == 200


def test_the_limit_of_tokens_is_a_setting(backend_with, llm):
    """MAX_PROMPT_TOKENS; who asks for the longest prompt is told of it."""
    with backend_with(Settings(llm_url=llm.stream_url, max_prompt_tokens=3)) as client:
        llm.script = says("x")
        assert client.post(COMPLETIONS, json={"model": "m", "prompt": [1, 2, 3]}).status_code == 200
        refused = client.post(COMPLETIONS, json={"model": "m", "prompt": [1, 2, 3, 4]})
        assert "length is 3 tokens" in expect_error(refused, 400, "context_length_exceeded", "prompt")


async def refuses_a_token(exchange):
    """Answer what the model service answers to an id that its vocabulary has not."""
    error = {"code": "invalid_prompt", "message": "prompt holds the token id 70, of 65.", "field": "prompt"}
    await exchange.answer({"error": error}, status=422)


@pytest.mark.parametrize("stream", [False, True])
def test_several_prompts_are_all_good_before_the_first_is_begun(backend, llm, stream):
    """What one costs is not known before all are checked: a refusal is an answer, also of a stream."""
    llm.script, llm.check = says("x"), refuses_a_token
    body = {"model": "m", "prompt": [[1]] * 20 + [[70]], "n": 2, "stream": stream}
    expect_error(backend.post(COMPLETIONS, json=body), 400, "invalid_request", "prompt")
    assert llm.exchanges == []
    [check] = llm.checks
    assert json.loads(check.body) == {"prompts": body["prompt"], "model": "m"}
    assert check.headers["x-request-id"]


def test_one_prompt_is_not_checked_before(backend, llm):
    """However many texts are made of it: the first would be refused before it is begun."""
    llm.script = says("x")
    for prompt in ("a", ["a"], [1], [[1]]):
        assert backend.post(COMPLETIONS, json={"model": "m", "prompt": prompt, "n": 3}).status_code == 200
    assert llm.checks == []


@pytest.mark.parametrize(
    ("path", "asked", "param"),
    [
        (COMPLETIONS, {"prompt": "a"}, "prompt"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}, "messages"),
    ],
)
def test_a_refusal_in_a_stream_is_the_frame_that_it_would_be_as_an_answer(backend, llm, path, asked, param):
    """A model may be another one by then: its type and its param say whose fault it is."""

    async def script(exchange):
        # The ninth waits for a place until one of the first eight has ended.
        await (refuses_a_token(exchange) if len(llm.exchanges) > 8 else exchange.answer(frames("x")))

    llm.script = script
    answer = backend.post(path, json={"model": "m", "n": 9, "stream": True} | asked)
    *_, last = [line for line in answer.text.splitlines() if line.startswith("data: ")]
    error = json.loads(last.removeprefix("data: "))["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, "invalid_request")


class BrokenGateway:
    """Has a fault that nobody expected."""

    async def stream(self, generation, request_id, client="", timeout_s=None):
        raise ZeroDivisionError("a secret of the code")
        yield

    async def check(self, prompts, model, request_id):
        raise ZeroDivisionError("a secret of the code")

    async def models(self, request_id):
        raise ZeroDivisionError("a secret of the code")

    async def ready(self, request_id):
        raise ZeroDivisionError("a secret of the code")


@pytest.mark.parametrize("fields", [{"prompt": "a"}, {"prompt": ["a", "b"]}, {"prompt": "a", "stream": True}])
def test_a_fault_of_our_own(backend_with, fields):
    """500 says where to look and nothing of what is inside."""
    with backend_with(Settings(), BrokenGateway()) as client:
        response = client.post(COMPLETIONS, json={"model": "m"} | fields, headers={"x-request-id": "find-me"})
        assert "find-me" in expect_error(response, 500, "internal", kind="server_error")
        assert "secret" not in response.text


def test_the_list_of_models(sdk, llm):
    """The default one first, each findable by its name."""

    async def script(exchange):
        card = {"family": "lstm", "vocab_size": 1, "tokenizer": "char", "parameters": 1, "size_bytes": 1, "digest": ""}
        names = {"a": False, "b": True}
        await exchange.answer({"models": [card | {"name": name, "default": it} for name, it in names.items()]})

    llm.script = script
    assert [model.id for model in sdk.models.list()] == ["b", "a"]
    assert sdk.models.retrieve("a").object == "model"
