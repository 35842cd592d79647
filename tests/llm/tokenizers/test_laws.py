"""What every tokenizer promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.llm.tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer, Tokenizer, TokenizerError, bpe, char
from functions.llm.tokenizers import parse_tokenizer as parse
from functions.llm.tokenizers.tokenizer import token_dtype

SPELLINGS = st.sampled_from([*bpe.SPECIAL_TOKENS, "<|prompt", "|>", "corbeau", " ", "\n", "\r\n", "e\u0301", "\0"])
TEXTS = st.lists(st.text(max_size=12) | SPELLINGS, max_size=12).map("".join)


def some_ids(tokenizer: Tokenizer) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=40)


@given(text=TEXTS)
def test_bytes_and_bpe_give_back_every_text(bpe: BPETokenizer, text: str):
    """decode(encode(text)) == text, whatever the text."""
    for tokenizer in (ByteTokenizer(), bpe):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=TEXTS.filter(bool))
def test_characters_give_back_every_text_of_their_vocabulary(text: str):
    """decode(encode(text)) == text for a text made of the vocabulary's characters."""
    tokenizer = CharTokenizer.from_text(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=TEXTS)
def test_the_array_holds_the_ids(tokenizer: Tokenizer, text: str):
    """encode_array gives the ids of encode, however small the pieces it is made of."""
    whole = tokenizer.encode(text)
    with pytest.MonkeyPatch.context() as patch:
        for module in (bpe, char):
            patch.setattr(module, "PIECE_CHARS", 3)
        array = tokenizer.encode_array(text)
    assert array.tolist() == whole
    assert array.dtype == np.uint16


@given(data=st.data())
def test_text_is_the_joined_bytes_of_its_tokens(tokenizer: Tokenizer, data: st.DataObject):
    """decode(ids) is b"".join(token_bytes) read as UTF-8, for any ids at all."""
    ids = data.draw(some_ids(tokenizer))
    assert tokenizer.decode(ids) == b"".join(map(tokenizer.token_bytes, ids)).decode("utf-8", "replace")


@given(text=TEXTS)
def test_saved_and_loaded_is_the_same_tokenizer(tokenizer: Tokenizer, text: str):
    """tokenizer.json holds all of a tokenizer."""
    loaded = parse(tokenizer.to_json(), "tokenizer.json")
    assert loaded.to_json() == tokenizer.to_json()
    assert loaded.encode(text) == tokenizer.encode(text)
    assert (loaded.kind, loaded.vocab_size, loaded.eos_id) == (tokenizer.kind, tokenizer.vocab_size, tokenizer.eos_id)
    assert loaded.special_tokens == tokenizer.special_tokens


def test_an_id_outside_the_vocabulary_is_refused_by_name(tokenizer: Tokenizer):
    """A negative id does not count from the end."""
    for token_id in (-1, tokenizer.vocab_size):
        with pytest.raises(TokenizerError, match=f"id {token_id} is outside"):
            tokenizer.decode([0, token_id])
        with pytest.raises(TokenizerError, match=f"id {token_id} is outside"):
            tokenizer.token_bytes(token_id)


@pytest.mark.parametrize("where", [0, 5])
def test_a_lone_surrogate_is_refused_by_place(tokenizer: Tokenizer, where: int, monkeypatch: pytest.MonkeyPatch):
    """What no UTF-8 can carry is an error and not another text, also in a later piece."""
    monkeypatch.setattr(char, "PIECE_CHARS", 2)
    text = "x" * where + "\ud83d" + "yz"
    for encode in (tokenizer.encode, tokenizer.encode_array):
        with pytest.raises(TokenizerError, match=rf"U\+D83D, character {where}\b"):
            encode(text)


def test_ids_of_a_large_vocabulary_do_not_wrap():
    """The last id of 65,536 fits 16 bits, the last of 65,537 needs 32."""
    for vocab_size in (1 << 16, (1 << 16) + 1):
        last = np.array([vocab_size - 1], token_dtype(vocab_size))
        assert last[0] == vocab_size - 1
    chars = CharTokenizer.from_chars(map(chr, range(0x10000, 0x10000 + (1 << 16) + 1)))
    assert chars.encode(chars.chars[-1]) == [1 << 16]
