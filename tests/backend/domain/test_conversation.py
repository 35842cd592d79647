"""A conversation is as long as all that is sent of it, and is read as no more tokens than it says."""

import pytest

from functions.backend.domain.conversation import MAX_MESSAGES, Conversation
from functions.backend.domain.errors import InvalidPrompt, PromptTooLong
from functions.backend.domain.prompt import PromptLimits


def of(characters):
    """Give limits that let so many characters pass, and any tokens."""
    return PromptLimits(1_000_000, characters)


SAID = {"role": "user", "content": "Nay"}
CALL = {"id": "", "type": "function", "function": {"name": "fly", "arguments": {"to": ["x" * 1000]}}}


def test_what_is_only_said_is_as_long_as_its_text():
    """A role is no text."""
    assert Conversation((SAID, SAID), of(6))
    with pytest.raises(PromptTooLong, match="may have 5 characters, and there are 6"):
        Conversation((SAID, SAID), of(5))


@pytest.mark.parametrize(
    "parts",
    [
        {"messages": (SAID, {"role": "assistant", "content": "", "tool_calls": [CALL]})},
        {"messages": ({**SAID, "name": "x" * 1000},)},
        {"messages": ({**SAID, "role": "tool", "tool_call_id": "x" * 1000},)},
        {"messages": (SAID,), "tools": ({"type": "function", "function": {"name": "x" * 1000}},)},
        {"messages": (SAID,), "options": {"documents": [{"x" * 1000: 1}]}},
        {"messages": (SAID,), "options": {"numbers": [10] * 500}},
    ],
)
def test_nothing_that_a_template_may_write_is_for_nothing(parts):
    """Whatever is sent besides the text counts as it is written."""
    assert Conversation(limits=of(3000), **parts).most_tokens >= 1000
    with pytest.raises(PromptTooLong, match="Shorten"):
        Conversation(limits=of(1000), **parts)


def test_each_message_is_read_whole():
    """With its role and what surrounds it, in bytes: a template writes something for one that says nothing."""
    nothing = {"role": "user", "content": ""}
    one, many = Conversation((nothing,), of(1)).most_tokens, Conversation((nothing,) * 100, of(1)).most_tokens
    assert one > 20
    assert many >= 100 * one
    assert Conversation(({**nothing, "content": "\U0001f600"},), of(1)).most_tokens == one + 4


def test_there_are_no_more_messages_than_the_model_service_takes():
    """However short they are."""
    nothing = {"role": "user", "content": ""}
    assert Conversation((nothing,) * MAX_MESSAGES, of(1))
    with pytest.raises(InvalidPrompt, match="10000"):
        Conversation((nothing,) * (MAX_MESSAGES + 1), of(1))
