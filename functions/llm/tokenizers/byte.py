"""Bytes of UTF-8 as tokens: no training, no unknown text, 256 ids."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from functions.llm.tokenizers.tokenizer import TokenArray, checked_id, joined_text, utf8_bytes


@dataclass(frozen=True, slots=True)
class ByteTokenizer:
    """A token is a byte and its id is the byte's value."""

    kind: ClassVar[str] = "byte"
    vocab_size: ClassVar[int] = 256
    special_tokens: ClassVar[Mapping[str, int]] = MappingProxyType({})
    eos_id: ClassVar[int | None] = None

    def encode(self, text: str) -> list[int]:
        """The bytes of the text."""
        return list(utf8_bytes(text))

    def encode_array(self, text: str) -> TokenArray:
        """The bytes of the text, uint16."""
        return np.frombuffer(utf8_bytes(text), np.uint8).astype(np.uint16)

    def decode(self, ids: Sequence[int]) -> str:
        """The text whose bytes these are."""
        return joined_text(map(self.token_bytes, ids))

    def token_bytes(self, token_id: int) -> bytes:
        """The byte."""
        return bytes((checked_id(token_id, self.vocab_size),))

    def to_json(self) -> str:
        """The kind says all."""
        return json.dumps({"type": self.kind})
