"""Characters as tokens: the vocabulary is the characters of the training text."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Self

import numpy as np

from functions.llm.tokenizers.tokenizer import (
    TokenArray,
    TokenizerError,
    checked_id,
    joined_text,
    lone_surrogate,
    token_dtype,
)

# Text is encoded in pieces: UTF-32 and its indices take 12 bytes a character, and a corpus has many.
PIECE_CHARS = 1 << 20


@dataclass(frozen=True)
class CharTokenizer:
    """A token is a Unicode code point; one outside the vocabulary is read as the fallback character.

    Law: decode(encode(text)) == text for every text made of `chars`.
    """

    chars: tuple[str, ...]
    fallback: str
    _id_of_code: TokenArray = field(init=False, repr=False, compare=False)

    kind: ClassVar[str] = "char"
    special_tokens: ClassVar[Mapping[str, int]] = MappingProxyType({})
    eos_id: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        """Refuse a vocabulary that cannot be a bijection, and make the table from code point to id."""
        if not self.chars:
            raise TokenizerError("chars is empty, a character vocabulary needs at least one character")
        for token_id, char in enumerate(self.chars):
            if len(char) != 1 or "\ud800" <= char <= "\udfff":
                raise TokenizerError(f"chars[{token_id}] is {char[:40]!a}, expected one Unicode character")
        ids = {char: token_id for token_id, char in enumerate(self.chars)}
        if len(ids) < len(self.chars):
            twice = next(char for token_id, char in enumerate(self.chars) if ids[char] != token_id)
            raise TokenizerError(f"chars holds {twice!a} more than once")
        if self.fallback not in ids:
            raise TokenizerError(f"fallback is {self.fallback[:40]!a}, which is not in chars")
        codes = np.array([ord(char) for char in self.chars])
        # One entry more than the largest code point: every code point above it shares this last one.
        table = np.full(int(codes.max()) + 2, ids[self.fallback], token_dtype(len(self.chars)))
        table[codes] = np.arange(len(codes))
        object.__setattr__(self, "_id_of_code", table)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """A vocabulary of the text's characters in code point order."""
        return cls.from_chars(sorted(set(text)))

    @classmethod
    def from_chars(cls, chars: Iterable[str]) -> Self:
        """The vocabulary of these characters; unknown ones become its space, or its first character if it has none."""
        ordered = tuple(chars)
        return cls(ordered, " " if " " in ordered else ordered[0] if ordered else "")

    @property
    def vocab_size(self) -> int:
        """The number of characters."""
        return len(self.chars)

    def encode(self, text: str) -> list[int]:
        """Ids of the characters."""
        ids: list[int] = self.encode_array(text).tolist()
        return ids

    def encode_array(self, text: str) -> TokenArray:
        """Ids of the characters by one table look-up each."""
        ids = np.empty(len(text), self._id_of_code.dtype)
        for start in range(0, len(text), PIECE_CHARS):
            codes = np.frombuffer(_utf32(text, start, start + PIECE_CHARS), "<u4")
            ids[start : start + PIECE_CHARS] = self._id_of_code[np.minimum(codes, len(self._id_of_code) - 1)]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The characters of the ids."""
        return joined_text(map(self.token_bytes, ids))

    def token_bytes(self, token_id: int) -> bytes:
        """The character in UTF-8."""
        return self.chars[checked_id(token_id, len(self.chars))].encode()

    def to_json(self) -> str:
        """Kind, characters in the order of their ids, fallback."""
        return json.dumps({"type": self.kind, "chars": self.chars, "fallback": self.fallback}, ensure_ascii=False)


def _utf32(text: str, start: int, end: int) -> bytes:
    try:
        return text[start:end].encode("utf-32-le")
    except UnicodeEncodeError as error:
        # Named by its place in the whole text, not in the piece.
        raise lone_surrogate(
            UnicodeEncodeError(error.encoding, text, start + error.start, start + error.end, error.reason)
        ) from None
