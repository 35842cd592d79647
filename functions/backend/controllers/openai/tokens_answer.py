"""What POST /tokenize answers."""

import json
from collections.abc import Iterator, Sequence

from typing_extensions import TypedDict

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


def write_tokens(tokens: Tokens, max_model_len: int, *, pieces: bool, strings: bool) -> bytes:
    """Give a TokenizeAnswer as JSON, in a thread without holding up the others.

    Args:
        tokens: of the text.
        max_model_len: the longest prompt that is read.
        pieces: tell the tokens as objects.
        strings: tell each token's text.
    """
    places = range(0, len(tokens.ids), _AT_ONCE)
    told = _joined(_told(tokens, slice(place, place + _AT_ONCE), pieces=pieces) for place in places)
    texts = "null"
    if strings:
        texts = _joined(
            [piece.decode("utf-8", "replace") for piece in tokens.pieces[place : place + _AT_ONCE]] for place in places
        )
    count = len(tokens.ids)
    return f'{{"tokens":{told},"count":{count},"max_model_len":{max_model_len},"token_strs":{texts}}}'.encode()


def _told(tokens: Tokens, part: slice, *, pieces: bool) -> Sequence[int | Piece]:
    if not pieces:
        return tokens.ids[part]
    both = zip(tokens.ids[part], tokens.pieces[part], strict=True)
    return [Piece(id=token_id, piece=_piece(raw)) for token_id, raw in both]


def _joined(parts: Iterator[Sequence[object]]) -> str:
    lists = (json.dumps(part, ensure_ascii=False, separators=(",", ":")) for part in parts)
    return f"[{','.join(each[1:-1] for each in lists)}]"


def _piece(raw: bytes) -> str | list[int]:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return list(raw)
