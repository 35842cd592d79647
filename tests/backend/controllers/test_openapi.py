"""The OpenAPI document says what the API does."""

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
    refusals = {"400", "401", "403", "404", "413", "415", "422", "429", "500", "502", "503", "504"}
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
