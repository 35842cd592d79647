"""Under a model's own root the paths for OpenAI's clients are that model's."""

import json
from urllib.parse import parse_qs

import openai
import pytest

from functions.backend.settings import Settings
from tests.backend.controllers.openai.conftest import frames
from tests.backend.controllers.openai.test_refusals import expect_error

ROOT = "/models/raven"
CARD = {"family": "lstm", "vocab_size": 1, "tokenizer": "char", "parameters": 1, "size_bytes": 1, "digest": ""}
INFO = {
    "kind": "byte", "vocab_size": 256, "max_prompt_tokens": 99, "bos_token": None, "eos_token": None,
    "special_tokens": {}, "chat_template": "",
}  # fmt: skip
POSTS = [
    ("/v1/completions", {"prompt": "a"}),
    ("/v1/completions", {"prompt": "a", "stream": True}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
    ("/tokenize", {"prompt": "a"}),
    ("/detokenize", {"tokens": [1]}),
]
MODELS = ("muninn", "raven")


@pytest.fixture
def two_models(llm):
    """A model service of muninn, the default, and raven; a list of the models that it was asked for."""
    asked = []

    async def script(exchange):
        if exchange.path == "/models":
            names = [CARD | {"name": name, "default": name == MODELS[0]} for name in MODELS]
            return await exchange.answer({"models": names})
        query = parse_qs(exchange.query).get("model", [None])[0]
        name = json.loads(exchange.body or b"{}").get("model", query) or MODELS[0]
        asked.append(name)
        if name not in MODELS:
            error = {"code": "model_not_found", "message": f"There is no model {name!r} here.", "field": "model"}
            return await exchange.answer({"error": error}, status=404)
        if exchange.path == "/tokenizer_info":
            return await exchange.answer({"model": name, **INFO})
        if exchange.path == "/tokenize":
            return await exchange.answer({"model": name, "tokens": [1], "pieces": ["61"]})
        if exchange.path == "/detokenize":
            return await exchange.answer({"model": name, "text": "a"})
        return await exchange.answer(frames("b", model=name))

    llm.script = script
    return asked


@pytest.mark.parametrize(("path", "body"), POSTS)
def test_its_model_is_the_default_one(backend, two_models, path, body):
    """And may be named; beside the root the model service's own choice stands."""
    for model in ({}, {"model": None}, {"model": "raven"}):
        answer = backend.post(f"{ROOT}{path}", json=body | model)
        assert answer.status_code == 200
        if "/v1/" in path:
            assert '"model":"raven"' in answer.text
    assert set(two_models) == {"raven"}
    assert backend.post(path, json=body).status_code == 200
    assert two_models[-1] == "muninn"


def test_its_tokenizer_is_told_of(backend, two_models):
    """Without a name, as lm-evaluation-harness asks, and with one."""
    for query in ("", "?model=raven"):
        assert backend.get(f"{ROOT}/tokenizer_info{query}").json()["model"] == "raven"
    expect_error(backend.get(f"{ROOT}/tokenizer_info?model=muninn"), 400, "invalid_request", "model")


@pytest.mark.parametrize(("path", "body"), POSTS)
def test_another_model_is_not_to_be_had_there(backend, two_models, path, body):
    """The request contradicts itself, and nothing reaches the model service."""
    answer = backend.post(f"{ROOT}{path}", json=body | {"model": "muninn"})
    message = expect_error(answer, 400, "invalid_request", "model")
    assert "'muninn'" in message
    assert "'raven'" in message
    assert two_models == []


@pytest.mark.parametrize("root", ["/models/ghost", "/models/org/ghost"])
def test_the_root_of_a_model_that_is_not_there(backend, two_models, root):
    """404, whatever is asked."""
    for path, body in POSTS:
        expect_error(backend.post(f"{root}{path}", json=body), 404, "model_not_found", "model")
    for path in ("/tokenizer_info", "/v1/models", "/v1/models/raven"):
        expect_error(backend.get(f"{root}{path}"), 404, "model_not_found", "model")


def test_its_model_alone_is_listed(backend, two_models):
    """What is listed there can be asked there."""
    with openai.OpenAI(base_url=f"{backend.base_url}{ROOT}/v1", api_key="none", max_retries=0) as sdk:
        assert [model.id for model in sdk.models.list()] == ["raven"]
        assert sdk.models.retrieve("raven").id == "raven"
        with pytest.raises(openai.NotFoundError):
            sdk.models.retrieve("muninn")
        assert sdk.completions.create(model="raven", prompt="a").model == "raven"


def test_what_else_is_there_is_nothing(backend, llm):
    """404 and 405 as beside the root, by the path that was asked; our own API, probes and document have no root."""
    for path in (f"{ROOT}/v1/nowhere", ROOT, "/models", f"{ROOT}/api/llm/models", f"{ROOT}/livez", "/models//tokenize"):
        assert path in expect_error(backend.get(path), 404, "not_found")
    for path, _ in POSTS:
        refused = backend.get(f"{ROOT}{path}", headers={"x-request-id": "raven-1"})
        assert f"{ROOT}{path}" in expect_error(refused, 405, "method_not_allowed")
        assert (refused.headers["allow"], refused.headers["x-request-id"]) == ("POST", "raven-1")
    assert llm.exchanges == []


def test_faults_are_named_as_beside_it(backend, llm):
    """What is a prompt to a model was sent to it as messages."""

    async def script(exchange):
        error = {"code": "invalid_request", "message": "The prompt cannot be read as it is.", "field": "prompt"}
        await exchange.answer({"error": error}, status=422)

    llm.script = script
    body = {"messages": [{"role": "user", "content": "a"}], "model": "raven"}
    for root in ("", ROOT):
        answer = backend.post(f"{root}/v1/chat/completions", json=body)
        expect_error(answer, 400, "invalid_request", "messages")


def test_keys_and_other_sites_are_the_same_there(backend_with, llm):
    """A key is asked for, a session of the page is none, and a preflight is answered."""
    origin = "https://a.example"
    settings = Settings(llm_url=llm.stream_url, auth="on", session_secrets=("s" * 32,), cors_origins=(origin,))
    with backend_with(settings) as client:
        for path, body in POSTS:
            refused = client.post(f"{ROOT}{path}", json=body, headers={"cookie": "huginn_session=v1.a.b"})
            expect_error(refused, 401, "invalid_api_key", kind="authentication_error")
        headers = {"origin": origin, "access-control-request-method": "POST"}
        preflight = client.options(f"{ROOT}/v1/completions", headers=headers)
        assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, origin)
