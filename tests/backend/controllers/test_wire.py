"""Reading a request costs little, however wrong it is."""

import json

import pytest
from pydantic import ValidationError

from functions.backend.controllers.openai.chat_request import ChatRequest
from functions.backend.controllers.openai.completion_request import CompletionsRequest
from functions.backend.controllers.openai.fields import StreamOptions
from functions.backend.controllers.openai.tokenization import DetokenizeRequest, TokenizeRequest
from functions.backend.controllers.wire import GenerationRequest
from functions.backend.domain.errors import InvalidRequest

# Each kind of request, and a field that it has.
NEEDED = {
    GenerationRequest: "prompt",
    ChatRequest: "messages",
    CompletionsRequest: "prompt",
    TokenizeRequest: "prompt",
    DetokenizeRequest: "tokens",
}


@pytest.mark.parametrize(
    ("kind", "field", "count"),
    [
        (GenerationRequest, "prompt", 1000),
        (GenerationRequest, "stop", 16),
        (GenerationRequest, "stop_token_ids", 1000),
        (ChatRequest, "stop", 16),
        (ChatRequest, "stop_token_ids", 1000),
        (ChatRequest, "modalities", 1000),
        (DetokenizeRequest, "tokens", 1000),
    ],
)
def test_one_wrong_element_is_enough(kind, field, count):
    """A list of half a million wrong elements is refused at the first, not reported half a million times."""
    with pytest.raises(ValidationError) as refusal:
        kind.model_validate({NEEDED[kind]: "a", field: [None] * count})
    assert refusal.value.error_count() <= 2


@pytest.mark.parametrize("kind", [*NEEDED, StreamOptions])
def test_one_unknown_field_is_enough(kind):
    """The first is told of, with all that it may be."""
    with pytest.raises(ValidationError) as refusal:
        kind.model_validate({NEEDED.get(kind, "include_usage"): None, **{f"field{place}": 1 for place in range(1000)}})
    told = [fault["loc"] for fault in refusal.value.errors() if fault["type"] == "extra_forbidden"]
    assert told == [("field0",)]


@pytest.mark.parametrize("kind", [GenerationRequest, ChatRequest, CompletionsRequest])
@pytest.mark.parametrize(("field", "most"), [("stop", 16), ("stop_token_ids", 1000), ("logit_bias", 1000)])
def test_too_many_elements_are_not_converted(kind, field, most):
    """They are counted: wrong as each of these is, that is not what is said of them."""
    entries = {f"x{place}": None for place in range(most + 1)}
    body = {NEEDED[kind]: "a", field: entries if field == "logit_bias" else list(entries.values())}
    with pytest.raises(InvalidRequest) as refusal:
        kind.model_validate_json(json.dumps(body))
    assert refusal.value.field == field
    assert refusal.value.message == f"{field} has {most + 1} entries and may have at most {most}."
