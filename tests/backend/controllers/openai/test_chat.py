"""POST /v1/chat/completions, as OpenAI's own client meets it."""

import json

import openai
import pytest

from tests.backend.controllers.openai.conftest import frames, says
from tests.backend.controllers.openai.test_refusals import expect_error

USER = {"role": "user", "content": "Who goes there?"}
ASK = {"model": "m", "messages": [USER]}
TOOL = {"type": "function", "function": {"name": "fly", "parameters": {"type": "object", "properties": {}}}}
CHAT = "/v1/chat/completions"


def asked(llm):
    """Give the bodies that the model service was sent."""
    return [json.loads(exchange.body) for exchange in llm.exchanges]


def scored(place, token_id, text, logprob, top, **more):
    return {"i": place, "id": token_id, "text": text, "logprob": logprob, "top": top, **more}


def test_an_answer_is_what_the_model_said(sdk, llm):
    """The model gets the conversation, and the answer is its text."""
    llm.script = says(" A", " raven.", cached=1, reason="stop")
    answer = sdk.chat.completions.create(**ASK)
    assert answer.object == "chat.completion"
    [choice] = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", " A raven.", "stop")
    assert choice.message.tool_calls is choice.logprobs is None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 2)
    assert answer.usage.prompt_tokens_details.cached_tokens == 1
    assert asked(llm) == [{"prompt": {"messages": [USER]}, "max_tokens": 1024, "temperature": 1.0, "model": "m"}]


def test_messages_reach_the_template_as_templates_read_them(sdk, llm):
    """Parts as one text, a call's arguments as what they say, and nothing that only clients need."""
    llm.script = says("x")
    call = {"id": "c1", "type": "function", "function": {"name": "fly", "arguments": '{"to": "Où"}'}}
    sdk.chat.completions.create(
        model="m",
        messages=[
            {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
            USER | {"name": "Ann"},
            {"role": "assistant", "content": None, "refusal": None, "annotations": [], "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "landed"},
        ],
        tools=[TOOL],
        max_completion_tokens=5,
        max_tokens=9,
        extra_body={"chat_template_kwargs": {"thinking": False}, "add_generation_prompt": False},
    )
    [body] = asked(llm)
    assert body["max_tokens"] == 5
    assert body["prompt"] == {
        "messages": [
            {"role": "developer", "content": "Be brief."},
            USER | {"name": "Ann"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "fly", "arguments": {"to": "Où"}}}
                ],
            },
            {"role": "tool", "content": "landed", "tool_call_id": "c1"},
        ],
        "tools": [TOOL],
        "options": {"thinking": False},
        "add_generation_prompt": False,
    }


def test_log_probabilities(sdk, llm):
    """Each token's own, its bytes, and what might have stood in its place."""
    token = scored(3, 195, "", -0.5, [[7, "é", -0.25], [195, "\ufffd", -0.5, "c3"]], bytes="c3")
    llm.script = says(token, scored(4, 9, "ù!", -2.0, [], bytes="b921"))
    [choice] = sdk.chat.completions.create(**ASK, logprobs=True, top_logprobs=2).choices
    first, second = choice.logprobs.content
    assert (first.token, first.logprob, first.bytes) == ("bytes:\\xc3", -0.5, [0xC3])
    assert [(one.token, one.logprob, one.bytes) for one in first.top_logprobs] == [
        ("é", -0.25, [0xC3, 0xA9]),
        ("bytes:\\xc3", -0.5, [0xC3]),
    ]
    assert bytes(first.bytes + second.bytes).decode() == choice.message.content
    assert second.top_logprobs == []
    assert asked(llm)[0]["logprobs"] == 2


def test_a_stream_is_told_in_chunks(sdk, llm):
    """The first says who speaks; joined, they are the answer."""
    llm.script = says(" A", "", " raven.", reason="stop")
    stream = sdk.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
    *chunks, last = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == " A raven."
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, None, "stop"]
    assert (last.choices, last.usage.total_tokens) == ([], 6)


def test_a_stream_helper_puts_it_together(sdk, llm):
    """OpenAI's own accumulator reads several answers, with their log-probabilities."""

    async def script(exchange):
        seed = json.loads(exchange.body)["seed"]
        await exchange.answer(frames(scored(3, 1, f"{seed}", -0.5, []), scored(4, 2, "!", -0.25, []), reason="stop"))

    llm.script = script
    with sdk.chat.completions.stream(**ASK, n=2, seed=4, logprobs=True) as stream:
        stream.until_done()
        final = stream.get_final_completion()
    assert [choice.message.content for choice in final.choices] == ["4!", "5!"]
    assert [[one.logprob for one in choice.logprobs.content] for choice in final.choices] == [[-0.5, -0.25]] * 2


BLOCKS = (
    'Hm.<tool_call>\n{"name": "fly", "arguments": {"to": "Où"}}\n</tool_call>\n<tool_call>{"name": "fly"}</tool_call>\n'
)
BARE = ' {"name": "fly", "parameters": {"to": "Où"}}'


@pytest.mark.parametrize(
    ("said", "content", "arguments"),
    [
        (BLOCKS, "Hm.", ['{"to": "Où"}', "{}"]),
        (BARE, None, ['{"to": "Où"}']),
        (f"[{BARE},{BARE}]", None, ['{"to": "Où"}'] * 2),
        ('<tool_call>{"name": "swim"}</tool_call>', '<tool_call>{"name": "swim"}</tool_call>', None),
        ("<tool_call>never closed", "<tool_call>never closed", None),
        ('{"name": "fl', '{"name": "fl', None),
        ('{"name": ["fly"]}', '{"name": ["fly"]}', None),
        (BLOCKS + "So.", "Hm.\nSo.", ['{"to": "Où"}', "{}"]),
        ("a < b <tool", "a < b <tool", None),
    ],
)
def test_calls_of_tools(sdk, llm, said, content, arguments):
    """Read out of the text, whole and streamed alike; what only looks like a call stays text."""
    llm.script = says(*said, reason="stop")
    for stream in (False, True):
        if stream:
            with sdk.chat.completions.stream(**ASK, tools=[TOOL]) as told:
                told.until_done()
                [choice] = told.get_final_completion().choices
        else:
            [choice] = sdk.chat.completions.create(**ASK, tools=[TOOL]).choices
        assert (choice.message.content or None) == content
        calls = choice.message.tool_calls
        assert ([call.function.arguments for call in calls] if calls else None) == arguments
        assert choice.finish_reason == ("tool_calls" if arguments else "stop")
        if calls:
            assert len({call.id for call in calls}) == len(calls)
            assert {call.function.name for call in calls} == {"fly"}


def test_without_tools_nothing_is_a_call(sdk, llm):
    """Nor where the request says that none is to be made."""
    llm.script = says(BARE)
    for fields in ({}, {"tools": [TOOL], "tool_choice": "none"}):
        [choice] = sdk.chat.completions.create(**ASK, **fields).choices
        assert (choice.message.content, choice.message.tool_calls) == (BARE, None)
        assert "tools" not in asked(llm)[-1]["prompt"]


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"messages": []}, "messages", "at least one"),
        ({"messages": "hello"}, "messages", "list"),
        ({"messages": ["hello"] * 10_001}, "messages", "10000"),
        ({"chat_template_kwargs": {"a": [[]] * 100_000}}, "chat_template_kwargs", "more than 100000 values"),
        ({"stop_token_ids": [1] * 1001}, "stop_token_ids", "1000"),
        ({"logit_bias": dict.fromkeys(map(str, range(1001)), 1)}, "logit_bias", "1000"),
        ({"messages": ["hello"]}, "messages", r"[0]"),
        ({"messages": [USER, {"role": "narrator", "content": "a"}]}, "messages", "[1]: role is 'narrator'"),
        ({"messages": [{"role": "user"}]}, "messages", "no content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages", "text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", "text alone"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages", "function"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
            "messages",
            "not JSON",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[NaN]"}}]}]},
            "messages",
            "NaN",
        ),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '"\\ud800"'}}]}
                ]
            },
            "messages",
            "not JSON",
        ),
        *(
            (
                {
                    "messages": [
                        {
                            "role": "assistant",
                            "tool_calls": [{"function": {"name": "f", "arguments": "[" * n + "]" * n}}],
                        }
                    ]
                },
                "messages",
                "deep",
            )
            for n in (100, 190, 900)
        ),
        ({"chat_template_kwargs": {"a": json.loads("[" * 120 + "]" * 120)}}, "chat_template_kwargs", "deep"),
        ({"messages": [{"role": "user", "content": "a" * 100_001}]}, "messages", "100000"),
        ({"tools": [{"type": "web_search"}]}, "tools", "functions"),
        ({"tools": {}}, "tools", "functions"),
        ({"tools": [TOOL], "tool_choice": "required"}, "tool_choice", "make a model call"),
        ({"response_format": {"type": "json_object"}}, "response_format", "text"),
        ({"modalities": ["audio"]}, "modalities", "text"),
        ({"top_logprobs": 2}, "top_logprobs", "logprobs to true"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "20"),
        ({"logprobs": 2}, "logprobs", "boolean"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", "between"),
        ({"max_tokens": 5000}, "max_tokens", "4096"),
        ({"reasoning_effort": "low"}, "reasoning_effort", "do not reason"),
        ({"functions": []}, "functions", "tools"),
        ({"n": 129}, "n", "128"),
        ({"prompt": "a"}, "prompt", "messages"),
    ],
)
def test_a_request_that_cannot_be_served(backend, llm, fields, param, said):
    """400, the field by name, and nothing reaches the model."""
    response = backend.post(CHAT, json=ASK | fields)
    code = response.json()["error"]["code"]
    assert code == ("context_length_exceeded" if said == "100000" else "invalid_request")
    assert said in expect_error(response, 400, code, param if param != "prompt" else "messages")
    assert llm.exchanges == []


def test_a_prompt_that_the_model_finds_too_long(sdk, llm):
    """The name that clients look for, and the field that they know."""

    async def script(exchange):
        error = {"code": "prompt_too_long", "message": "The prompt has 40000 tokens.", "field": "prompt"}
        await exchange.answer({"error": error}, status=413)

    llm.script = script
    with pytest.raises(openai.BadRequestError) as raised:
        sdk.chat.completions.create(**ASK)
    assert (raised.value.code, raised.value.param) == ("context_length_exceeded", "messages")
