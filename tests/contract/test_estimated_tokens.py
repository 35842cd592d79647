"""What the backend takes of a quota for a prompt is no less than the tokens that the model service reads of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.backend.controllers.metered import estimated_tokens
from functions.backend.domain.conversation import Conversation
from functions.backend.domain.generation import Generation
from functions.backend.domain.prompt import Prompt, PromptLimits, SamplingOptions
from functions.llm.inference.chat_template import MARKED_TEMPLATE, PLAIN_TEMPLATE, ChatTemplate
from functions.llm.inference.chat_template import Conversation as Read
from functions.llm.tokenizers import ByteTokenizer, CharTokenizer

LIMITS = PromptLimits(100_000)
EMOJI = "\U0001f600"
ROLES = ("system", "developer", "user", "assistant", "tool")
MESSAGES = st.fixed_dictionaries({"role": st.sampled_from(ROLES), "content": st.text(max_size=20)})
ORDINARY = (
    {"role": "system", "content": "You are a raven. Answer in one word."},
    {"role": "user", "content": 'Is there balm in Gilead?\n\n"Tell me truly, I implore!"'},
    {"role": "assistant", "content": "Nevermore."},
    {"role": "user", "content": "Où est le corbeau\u202f?"},
)


@pytest.fixture(scope="module")
def default_template(tmp_path_factory):
    """What a checkpoint that says nothing of chats is given."""
    template = ChatTemplate.of(tmp_path_factory.mktemp("checkpoint"), ByteTokenizer())
    assert template.source == PLAIN_TEMPLATE
    return template


def estimated(prompt):
    """Give what is taken for the prompt alone."""
    return estimated_tokens(Generation(prompt, SamplingOptions(max_tokens=7))) - 7


def read(template, messages, begun=True):
    """Give how many tokens are read by who makes the most of them, and by who makes one of each character."""
    text = template.render(Read(tuple(messages), add_generation_prompt=begun))
    return max(len(ByteTokenizer().encode(text)), len(CharTokenizer.from_text(text or " ").encode(text)))


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": ""}] * 3000,
        [{"role": "assistant", "content": ""}] * 3000,
        [{"role": "system", "content": ""}],
        [{"role": "user", "content": EMOJI * 2000}],
        [{"role": "user", "content": EMOJI}] * 500,
        ORDINARY,
    ],
)
def test_a_conversation_is_read_as_no_more_than_was_taken(default_template, messages):
    """However much of it the template wrote; and what is taken is of that order."""
    most, tokens = estimated(Conversation(tuple(messages), LIMITS)), read(default_template, messages)
    assert tokens <= most <= 40 * len(messages) + 2 * tokens


@given(messages=st.lists(MESSAGES, min_size=1, max_size=5), begun=st.booleans())
def test_any_conversation_is(default_template, messages, begun):
    """Whoever says whatever."""
    conversation = Conversation(tuple(messages), LIMITS, add_generation_prompt=begun)
    assert read(default_template, messages, begun) <= estimated(conversation)


@given(messages=st.lists(MESSAGES, min_size=1, max_size=5))
def test_marks_are_fewer_than_what_is_taken_for_them(messages):
    """A mark is one token, as it is for a vocabulary that has the other template: here each is written as one byte."""
    source = MARKED_TEMPLATE
    for mark in ("<|prompt|>", "<|endprompt|>", "<|answer|>", "<|endanswer|>"):
        source = source.replace(mark, "|")
    assert read(ChatTemplate(source), messages) <= estimated(Conversation(tuple(messages), LIMITS))


@given(text=st.text(min_size=1, max_size=50))
def test_a_text_is_read_as_no_more_than_was_taken(text):
    """To the byte, for a tokenizer of bytes."""
    assert len(ByteTokenizer().encode(text)) == estimated(Prompt(text, LIMITS, trimmed=False))


@given(text=st.text(min_size=1), messages=st.lists(MESSAGES, min_size=1, max_size=5), longest=st.integers(1, 50))
def test_no_more_is_taken_than_the_longest_prompt_has(text, messages, longest):
    """What is longer is refused, and nothing is read of it."""
    limits = PromptLimits(longest)
    for prompt in (Prompt(text, limits, trimmed=False), Conversation(tuple(messages), limits)):
        assert estimated(prompt) <= longest
