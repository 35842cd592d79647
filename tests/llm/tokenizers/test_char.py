"""The predecessor's characters."""

import json

import pytest

from functions.llm.tokenizers import CharTokenizer, TokenizerError


def test_a_text_gives_its_characters_in_code_point_order():
    assert CharTokenizer.from_text("bénie aéa🐦\n").chars == ("\n", " ", "a", "b", "e", "i", "n", "é", "🐦")


def test_an_unknown_character_is_read_as_a_space():
    """Below, between and above the known code points."""
    tokenizer = CharTokenizer.from_text("a c")
    assert tokenizer.encode("a!b\U0010ffffc") == [1, 0, 0, 0, 2]


def test_without_a_space_an_unknown_character_is_read_as_the_first():
    tokenizer = CharTokenizer.from_chars("xyz")
    assert tokenizer.decode(tokenizer.encode("z!y")) == "zxy"


def test_a_declared_fallback_is_used_and_kept():
    tokenizer = CharTokenizer(("x", " ", "?"), "?")
    assert tokenizer.encode("é") == [2]
    assert json.loads(tokenizer.to_json()) == {"type": "char", "chars": ["x", " ", "?"], "fallback": "?"}


@pytest.mark.parametrize(
    ("chars", "fallback", "message"),
    [
        ((), " ", "chars is empty"),
        (("a", "bc"), "a", r"chars\[1\] is 'bc', expected one Unicode character"),
        (("a", ""), "a", r"chars\[1\] is ''"),
        (("a", "\udc80"), "a", r"chars\[1\] is '\\udc80'"),
        (("a", "b", "a"), "a", "chars holds 'a' more than once"),
        (("a", "b"), "c", "fallback is 'c', which is not in chars"),
    ],
)
def test_a_vocabulary_that_cannot_be_is_refused(chars: tuple[str, ...], fallback: str, message: str):
    with pytest.raises(TokenizerError, match=message):
        CharTokenizer(chars, fallback)


def test_a_text_without_characters_makes_no_vocabulary():
    with pytest.raises(TokenizerError, match="chars is empty"):
        CharTokenizer.from_text("")
