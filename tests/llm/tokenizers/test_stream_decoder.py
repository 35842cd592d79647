"""Text that comes token by token is the text of all tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.llm.tokenizers import BPETokenizer, ByteTokenizer, StreamDecoder, Tokenizer


def streamed(decoder: StreamDecoder, ids: list[int]) -> str:
    return "".join(map(decoder.push, ids)) + decoder.flush()


@given(data=st.data())
def test_pushes_and_flush_join_to_the_decoded_text(tokenizer: Tokenizer, data: st.DataObject):
    """For any ids, those of no text included."""
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=40))
    assert streamed(StreamDecoder(tokenizer), ids) == tokenizer.decode(ids)


@given(text=st.text(max_size=20))
def test_never_half_a_character(bpe: BPETokenizer, text: str):
    """After each token of a text, what has come out is a beginning of the text and nothing waits at the end."""
    for tokenizer in (ByteTokenizer(), bpe):
        decoder, seen = StreamDecoder(tokenizer), ""
        for token_id in tokenizer.encode(text):
            seen += decoder.push(token_id)
            assert text.startswith(seen)
            assert len(decoder.pending) < 4
        assert (seen, decoder.pending, decoder.flush()) == (text, b"", "")


@given(data=st.data())
def test_a_second_decoder_goes_on_from_the_pending_bytes(tokenizer: Tokenizer, data: st.DataObject):
    """Stopping anywhere and continuing elsewhere changes no character."""
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30))
    cut = data.draw(st.integers(0, len(ids)))
    first = StreamDecoder(tokenizer)
    head = "".join(map(first.push, ids[:cut]))
    assert head + streamed(StreamDecoder(tokenizer, first.pending), ids[cut:]) == tokenizer.decode(ids)


@given(data=st.data())
def test_a_token_stands_where_the_character_does_that_it_begins_or_goes_on_with(
    tokenizer: Tokenizer, data: st.DataObject
):
    """Of any ids: in the text of all bytes up to its first one, that is the last character."""
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30))
    decoder = StreamDecoder(tokenizer)
    for place, token_id in enumerate(ids):
        before = b"".join(map(tokenizer.token_bytes, ids[:place]))
        upto = before + tokenizer.token_bytes(token_id)[:1]
        assert decoder.place_of(token_id) == len(upto.decode("utf-8", "replace")) - 1
        decoder.push(token_id)


def test_places_are_those_of_one_text():
    """Each text has its own, also one that goes on with the bytes of another."""
    decoder = StreamDecoder(ByteTokenizer())
    for byte in b"ab\xc3":
        decoder.push(byte)
    assert (decoder.place_of(0xA9), decoder.place_of(ord("c"))) == (2, 3)
    decoder.flush()
    assert decoder.place_of(ord("c")) == 0
    assert StreamDecoder(ByteTokenizer(), b"\xc3").place_of(ord("c")) == 1


def test_each_token_of_a_text_gives_its_characters_at_once():
    """Nothing is held back longer than its character is incomplete."""
    decoder = StreamDecoder(ByteTokenizer())
    assert [decoder.push(byte) for byte in "aé🐦".encode()] == ["a", "", "é", "", "", "", "🐦"]


def test_a_text_that_stops_inside_a_character_ends_in_one_replacement():
    decoder = StreamDecoder(ByteTokenizer())
    assert [decoder.push(byte) for byte in "🐦".encode()[:3]] == ["", "", ""]
    assert (decoder.pending, decoder.flush(), decoder.pending) == ("🐦".encode()[:3], "\ufffd", b"")


@pytest.mark.parametrize("pending", [b"a", "é".encode(), b"\xff", b"\xe2\x82\xc3", b"\xe2\x82\xac\xe2"])
def test_pending_bytes_that_begin_no_character_are_refused(pending: bytes):
    with pytest.raises(ValueError, match="expected the beginning of one UTF-8 character"):
        StreamDecoder(ByteTokenizer(), pending)
