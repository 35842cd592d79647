"""The OpenAPI document says what the API does."""

import json
import math
from dataclasses import fields

import pytest

from functions.backend.app import build_app
from functions.backend.domain.prompt import SamplingOptions
from functions.backend.settings import Settings

DOCUMENT = build_app(Settings()).openapi()
STREAM = DOCUMENT["paths"]["/api/llm/stream"]["post"]
GENERATE = DOCUMENT["paths"]["/api/llm/generate"]["post"]
REQUEST = STREAM["requestBody"]["content"]["application/json"]["schema"]
DONE = (
    b'event: done\ndata: {"finish_reason":"stop","usage":{"prompt_tokens":1,"completion_tokens":0,"total_tokens":1},'
    b'"seed":1,"model":"m"}\n\n'
)


def test_every_route_is_documented_with_its_errors():
    """Paths, media types, and the statuses that clients meet, all of one error schema."""
    assert set(DOCUMENT["paths"]) == {
        "/api/llm/stream",
        "/api/llm/generate",
        "/api/llm/models",
        "/api/admin/keys",
        "/api/admin/usage",
        "/api/status",
        "/v1/models",
        "/v1/models/{model}",
        "/v1/completions",
        "/v1/chat/completions",
        "/tokenize",
        "/detokenize",
        "/tokenizer_info",
        "/livez",
        "/readyz",
    }
    refusals = {"400", "401", "403", "404", "408", "413", "415", "422", "429", "500", "502", "503", "504"}
    assert set(STREAM["responses"]) == {"200", "406"} | refusals
    assert set(GENERATE["responses"]) == {"200"} | refusals
    assert set(STREAM["responses"]["200"]["content"]) == {"text/plain", "text/event-stream"}
    assert set(GENERATE["responses"]["200"]["content"]) == {"application/json"}
    for path, operations in DOCUMENT["paths"].items():
        kind = "OpenAIErrorBody" if not path.startswith(("/api", "/livez", "/readyz")) else "ErrorBody"
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if status != "200":
                    schema = answer["content"]["application/json"]["schema"]
                    assert schema == {"$ref": f"#/components/schemas/{kind}"}


def test_every_option_is_documented_with_its_default():
    """The document's defaults are the domain's."""
    options = REQUEST["properties"]
    assert set(options) == {"prompt", "model"} | {option.name for option in fields(SamplingOptions)}
    assert REQUEST["required"] == ["prompt"]
    assert REQUEST["additionalProperties"] is False
    for option in fields(SamplingOptions):
        default = getattr(SamplingOptions(), option.name)
        documented = options[option.name].get("default")
        assert documented == (list(default) if isinstance(default, tuple) else default)


NUMBERS = [name for name, schema in REQUEST["properties"].items() if "maximum" in schema and name != "seed"]


@pytest.mark.parametrize("name", NUMBERS)
def test_documented_ranges_are_the_enforced_ones(backend, llm, name):
    """The API takes the ends of a documented range and refuses what is next to them."""
    llm.script = lambda exchange: exchange.answer(DONE)
    schema = REQUEST["properties"][name]
    whole = "integer" in str(schema)
    low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema["maximum"]
    beyond = [low - 1, high + 1] if whole else [math.nextafter(low, -math.inf), math.nextafter(high, math.inf)]
    within = [low, high] if "minimum" in schema else [math.nextafter(low, math.inf), high]
    beyond += [] if "minimum" in schema else [low]

    def status(value):
        body = {"prompt": "a", name: int(value) if whole else value}
        return backend.post("/api/llm/generate", json=body).status_code

    assert [status(value) for value in within] == [200] * len(within)
    assert [status(value) for value in beyond] == [422] * len(beyond)


BODIES = {
    path: operations["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
    for path, operations in DOCUMENT["paths"].items()
    if "requestBody" in operations.get("post", {})
}
ENTRIES = {
    "stop": ["a"] * 16,
    "stop_token_ids": [1] * 1000,
    "logit_bias": dict.fromkeys(map(str, range(1000)), 1),
    "messages": [{"role": "user", "content": ""}] * 10_000,
    "prompt": ["a"] * 128,
}
HAS_MANY = [(path, name) for path, known in BODIES.items() for name in ENTRIES if name in known]


@pytest.mark.parametrize(("path", "name"), HAS_MANY)
def test_documented_numbers_of_entries_are_the_enforced_ones(backend, llm, path, name):
    """As many as the document says are not too many, and one more are."""
    schema = json.dumps(BODIES[path][name])
    entries = ENTRIES[name]
    limit = f'"max{"Properties" if name == "logit_bias" else "Items"}": {len(entries)}'
    if name == "prompt" and path != "/v1/completions":
        assert "maxItems" not in schema  # one text or its ids, which may be as many as a prompt may be long
        return
    assert limit in schema
    llm.script = lambda exchange: exchange.answer(DONE)
    asked = {"messages": ENTRIES["messages"][:1]} if "chat" in path else {} if path == "/tokenize" else {"prompt": "a"}
    more = entries | {"1000": 1} if name == "logit_bias" else [*entries, entries[0]]
    taken, refused = (backend.post(path, json={**asked, "model": "m", name: value}) for value in (entries, more))
    # The scripted model service knows nothing of tokens.
    assert taken.status_code == 200 or (path, taken.status_code) == ("/tokenize", 502)
    assert refused.status_code == (422 if path.startswith("/api") else 400)
    assert str(len(entries)) in refused.json()["error"]["message"]


def test_whole_numbers_are_written_to_the_last_digit():
    """The largest seed is no power of ten, and a reader of the document may have no double precision."""
    assert REQUEST["properties"]["seed"]["exclusiveMaximum"] == 2**63
    assert '"exclusiveMaximum": 9223372036854775808' in json.dumps(DOCUMENT)


def test_what_needs_a_key_says_so():
    """A key alone at OpenAI's doors, the page's session at its own too; where nobody is asked, none is told of."""
    assert "securitySchemes" not in DOCUMENT["components"]
    document = build_app(Settings(auth="on", session_secrets=("s" * 32,))).openapi()
    schemes = document["components"]["securitySchemes"]
    assert (schemes["key"]["type"], schemes["key"]["scheme"]) == ("http", "bearer")
    assert schemes["session"]["name"] == "huginn_session"
    asked = {
        path: operation.get("security")
        for path, [operation] in ((path, operations.values()) for path, operations in document["paths"].items())
    }
    assert asked.pop("/livez") is asked.pop("/readyz") is None
    assert asked.pop("/v1/completions") == [{"key": []}]
    assert asked.pop("/api/llm/stream") == [{"key": []}, {"session": []}]
    assert all(asked.values())


def test_events_of_a_stream_are_told_one_by_one():
    """Each event's data is JSON of a shape, but for OpenAI's last one."""
    native = STREAM["responses"]["200"]["content"]["text/event-stream"]["itemSchema"]["properties"]["data"]
    assert [kind["title"] for kind in native["contentSchema"]["anyOf"]] == ["TokenBody", "DoneBody", "StreamErrorBody"]
    for path in ("/v1/completions", "/v1/chat/completions"):
        content = DOCUMENT["paths"][path]["post"]["responses"]["200"]["content"]["text/event-stream"]
        data = content["itemSchema"]["properties"]["data"]
        assert data["if"] == {"const": "[DONE]"}
        assert data["else"]["contentSchema"]["anyOf"][1]["title"] == "OpenAIErrorBody"
