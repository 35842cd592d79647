"""Prompts and options that cannot be built wrong."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.backend.domain.errors import InvalidPrompt, InvalidRequest, PromptTooLong
from functions.backend.domain.prompt import Prompt, PromptLimits, SamplingOptions

# Written out from the wire's contract: (option, values at the edges, values beyond them).
EDGES = [
    ("max_tokens", [1, 4096], [0, -1, 4097, 10**400]),
    ("temperature", [0, 10], [-0.001, 10.001, math.inf, math.nan]),
    ("top_k", [0, 65536], [-1]),
    ("top_p", [0, 1], [-0.001, 1.001, math.nan]),
    ("min_p", [0, 1], [-0.001, 1.001]),
    ("repetition_penalty", [0.001, 10], [0, 10.001]),
    ("presence_penalty", [-2, 2], [-2.001, 2.001]),
    ("frequency_penalty", [-2, 2], [-2.001, 2.001]),
    ("penalty_decay", [0, 1], [-0.001, 1.001]),
    (
        "logit_bias",
        [{}, {0: -100}, {7: 100}, dict.fromkeys(range(1000), 1)],
        [{1: 100.1}, {1: -100.1}, {1: math.nan}, {-1: 0}, dict.fromkeys(range(1001), 1)],
    ),
    ("stop", [(), ("x",) * 16], [("x",) * 17, ("",), ("x", "")]),
    ("stop_token_ids", [(), (0, 9), (1,) * 1000], [(-1,), (0, -1), (1,) * 1001]),
    ("seed", [None, 0, 2**63 - 1], [-1, 2**63]),
    ("logprobs", [None, 0, 20], [-1, 21]),
]


@pytest.mark.parametrize(("option", "value"), [(name, value) for name, allowed, _ in EDGES for value in allowed])
def test_options_take_their_whole_range(option, value):
    """The ends of a range belong to it where the contract says so."""
    assert getattr(SamplingOptions(**{option: value}), option) == value


@pytest.mark.parametrize(("option", "value"), [(name, value) for name, _, refused in EDGES for value in refused])
def test_options_refuse_what_is_beyond_and_name_themselves(option, value):
    """No SamplingOptions holds a value out of range."""
    with pytest.raises(InvalidRequest, match=option) as refusal:
        SamplingOptions(**{option: value})
    assert refusal.value.field == option
    assert len(refusal.value.message) < 200


@pytest.mark.parametrize("option", ["stop", "stop_token_ids", "logit_bias"])
def test_too_many_are_counted_not_looked_at(option):
    """That there are too many is said, not that each of them is wrong."""

    class Unread(dict if option == "logit_bias" else tuple):
        __slots__ = ()

        def __iter__(self):
            raise AssertionError("it was looked at")

        items = __iter__

    entries = range(2000)
    many = Unread(dict.fromkeys(entries)) if option == "logit_bias" else Unread(entries)
    with pytest.raises(InvalidRequest, match="has 2000 entries and may have at most 1"):
        SamplingOptions(**{option: many})


def test_each_text_has_a_seed_of_its_own_and_shares_the_rest():
    """One after another, round at the end; what was not given is not given to any."""
    options = SamplingOptions(seed=2**63 - 2, stop_token_ids=tuple(range(1000)))
    texts = [options.of_text(place) for place in range(3)]
    assert [text.seed for text in texts] == [2**63 - 2, 2**63 - 1, 0]
    assert [replace(text, seed=options.seed) for text in texts] == [options] * 3
    assert all(text.stop_token_ids is options.stop_token_ids for text in texts)
    unsown = SamplingOptions()
    assert unsown.of_text(2) == unsown


def test_a_prompt_is_read_as_bytes():
    """A tokenizer may have no more than these for a character that it does not know."""
    assert Prompt("Rù\U0001f600", PromptLimits(9)).most_tokens == 7
    assert Prompt((70_000, 1), PromptLimits(2)).most_tokens == 2


@given(text=st.text(), max_length=st.integers(1, 30))
def test_a_prompt_is_trimmed_not_empty_and_not_too_long(text, max_length):
    """Either a prompt obeys all three, or it does not exist."""
    trimmed, limits = text.strip(), PromptLimits(1, max_length)
    if 0 < len(trimmed) <= max_length:
        assert Prompt(text, limits).content == trimmed
    else:
        with pytest.raises(PromptTooLong if trimmed else InvalidPrompt) as refusal:
            Prompt(text, limits)
        assert refusal.value.field == "prompt"


@given(ids=st.lists(st.integers(-3, 2**31) | st.integers(0, 9), max_size=8).map(tuple), max_length=st.integers(1, 6))
def test_token_ids_are_taken_as_they_are(ids, max_length):
    """Ids are never trimmed; too many, none at all, or one that no tokenizer has are refused."""
    limits = PromptLimits(max_length, characters=1)
    if 0 < len(ids) <= max_length and 0 <= min(ids) <= max(ids) < 2**31:
        assert Prompt(ids, limits).content == ids
    else:
        with pytest.raises(PromptTooLong if len(ids) > max_length else InvalidPrompt):
            Prompt(ids, limits)


def test_equal_prompts_are_equal_whatever_limit_they_passed():
    """The limit is a check, not a part of the prompt."""
    assert Prompt(" a ", PromptLimits(1)) == Prompt("a", PromptLimits(9))
