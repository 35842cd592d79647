"""What POST /tokenize answers."""

from collections.abc import Iterable, Sequence

from typing_extensions import TypedDict

from functions.backend.controllers.written_list import WrittenList
from functions.backend.domain.tokenizer_card import Tokens

# Python's JSON writer lets no other thread run: it has so many at a time.
_AT_ONCE = 1000


class Piece(TypedDict):
    """A token as llama.cpp tells it: a part of a character has no text, and is a list of bytes."""

    id: int
    piece: str | list[int]


class TokenizeAnswer(TypedDict):
    """A text's tokens; `token_strs` is null unless it was asked for."""

    tokens: list[int] | list[Piece]
    count: int
    max_model_len: int
    token_strs: list[str] | None


def write_tokens(tokens: Tokens, max_model_len: int, *, pieces: bool, strings: bool) -> Sequence[bytes | bytearray]:
    """Give a TokenizeAnswer as JSON, in pieces; in a thread without holding up the others.

    Args:
        tokens: of the text.
        max_model_len: the longest prompt that is read.
        pieces: tell the tokens as objects.
        strings: tell each token's text.
    """
    places = range(0, len(tokens.ids), _AT_ONCE)
    told = _written(_told(tokens, slice(place, place + _AT_ONCE), pieces=pieces) for place in places)
    texts: Sequence[bytes | bytearray] = (b"null",)
    if strings:
        texts = _written(
            [piece.decode("utf-8", "replace") for piece in tokens.pieces[place : place + _AT_ONCE]] for place in places
        )
    counts = b',"count":%d,"max_model_len":%d,"token_strs":' % (len(tokens.ids), max_model_len)
    return (b'{"tokens":', *told, counts, *texts, b"}")


def _told(tokens: Tokens, part: slice, *, pieces: bool) -> Sequence[int | Piece]:
    if not pieces:
        return tokens.ids[part]
    both = zip(tokens.ids[part], tokens.pieces[part], strict=True)
    return [Piece(id=token_id, piece=_piece(raw)) for token_id, raw in both]


def _written(parts: Iterable[Sequence[object]]) -> Sequence[bytes | bytearray]:
    written = WrittenList()
    for part in parts:
        written.add(*part)
    return written.pieces()


def _piece(raw: bytes) -> str | list[int]:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return list(raw)
