"""Conversations and tokens between the two tiers: each side reads and writes the same golden files."""

import asyncio
import json
from pathlib import Path

import pytest

from functions.backend.adapters.http_tokenizer_gateway import HTTPTokenizerGateway
from functions.backend.adapters.llm_wire import write_check, write_prompt, write_request
from functions.backend.controllers.openai.messages import read_messages
from functions.backend.domain.conversation import MAX_MESSAGES, Conversation
from functions.backend.domain.errors import InvalidRequest
from functions.backend.domain.generation import Generation
from functions.backend.domain.prompt import MAX_CHARACTERS, MAX_ENTRIES, Prompt, PromptLimits, SamplingOptions
from functions.llm.controllers.errors import InvalidBodyError
from functions.llm.controllers.wire import CheckBody, DetokenizeAnswer, GenerateBody, TokenizeAnswer, TokenizerAnswer

GOLDEN = Path(__file__).parent / "golden"


def load(name):
    return json.loads((GOLDEN / name).read_bytes())


def test_a_conversation_is_written_by_the_backend_and_read_by_the_model_service():
    """Nothing of a message, a tool or an option is lost."""
    golden = load("conversation_request.json")
    prompt = golden["prompt"]
    conversation = Conversation(
        tuple(prompt["messages"]), PromptLimits(8000), tuple(prompt["tools"]), prompt["options"], False
    )
    options = SamplingOptions(max_tokens=8)
    assert json.loads(write_request(Generation(conversation, options, "muninn-char"))) == golden
    read = GenerateBody.from_json((GOLDEN / "conversation_request.json").read_bytes()).to_request(0).prompt
    assert list(read.messages) == prompt["messages"]
    assert (list(read.tools), read.options, read.add_generation_prompt) == (prompt["tools"], prompt["options"], False)


def test_prompts_are_written_by_the_backend_and_checked_by_the_model_service():
    """In every form, as they would be generated from."""
    golden = load("check_request.json")
    limits, talk = PromptLimits(9), golden["prompts"][2]["messages"]
    prompts = [Prompt("Où ", limits, trimmed=False), Prompt((20, 195), limits), Conversation(tuple(talk), limits)]
    assert json.loads(write_check(prompts, "muninn-char")) == golden
    assert json.loads(write_check(prompts, None)) == {"prompts": golden["prompts"]}
    text, ids, conversation = CheckBody.from_json((GOLDEN / "check_request.json").read_bytes()).to_prompts()
    assert (text, ids, list(conversation.messages)) == ("Où ", (20, 195), talk)


def test_the_backend_takes_no_longer_texts_than_the_model_service():
    """As many characters."""
    CheckBody.from_json(write_check([Prompt("a" * MAX_CHARACTERS, PromptLimits(9))], None))
    with pytest.raises(InvalidBodyError):
        CheckBody.from_json(json.dumps({"prompts": ["a" * (MAX_CHARACTERS + 1)]}).encode())


def test_the_backend_takes_no_more_entries_than_the_model_service():
    """What that would refuse is refused before it is asked."""
    schema = GenerateBody.model_json_schema()
    options = schema["properties"]
    assert options["stop_token_ids"]["maxItems"] == MAX_ENTRIES["stop_token_ids"]
    assert f'"maxItems": {MAX_ENTRIES["stop"]}' in json.dumps(options["stop"])
    assert schema["$defs"]["ConversationBody"]["properties"]["messages"]["maxItems"] == MAX_MESSAGES


class Recorded:
    """The model service's answers, as they are agreed."""

    async def fetch(self, method, path, request_id, body=None, max_bytes=0):
        names = {"/tokenize": "tokenize_response", "/detokenize": "detokenize_response"}
        return (GOLDEN / f"{names.get(path, 'tokenizer_info')}.json").read_bytes()


def test_answers_about_tokens_are_read_by_the_backend():
    """Every field."""
    tokenizers = HTTPTokenizerGateway(Recorded())
    tokens = asyncio.run(tokenizers.tokenize("Rù", None, "r"))
    assert (tokens.ids, tokens.pieces) == ((20, 195, 185), (b"R", b"\xc3", b"\xb9"))
    assert asyncio.run(tokenizers.detokenize([20], None, "r")) == "Rù"
    card = asyncio.run(tokenizers.tokenizer("muninn-char", "r"))
    assert {name: getattr(card, name) for name in load("tokenizer_info.json")} == load("tokenizer_info.json")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (TokenizeAnswer, "tokenize_response.json"),
        (DetokenizeAnswer, "detokenize_response.json"),
        (TokenizerAnswer, "tokenizer_info.json"),
    ],
)
def test_answers_about_tokens_are_what_the_model_service_promises(kind, name):
    """Neither more nor less than the documented fields."""
    assert kind.model_validate_json((GOLDEN / name).read_bytes(), extra="forbid").model_dump() == load(name)


def test_the_deepest_conversation_that_is_taken_is_read():
    """What the backend lets pass is no JSON that the llm function cannot read."""
    for depth in range(1, 101):
        call = {"function": {"name": "f", "arguments": "[" * depth + "]" * depth}}
        try:
            messages = read_messages([{"role": "assistant", "tool_calls": [call]}])
        except InvalidRequest:
            break
        prompt = write_prompt(Conversation(messages, PromptLimits(1000)))
        GenerateBody.from_json(json.dumps({"prompt": prompt}, default=dict).encode())
    assert 50 < depth < 100
