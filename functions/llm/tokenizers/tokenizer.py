"""What every tokenizer does, and the one error they all raise."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

TokenArray = NDArray[np.uint16] | NDArray[np.uint32]


class TokenizerError(ValueError):
    """A text, an id or a tokenizer.json that cannot be used; the message names it."""


class Tokenizer(Protocol):
    """Text to ids and back.

    Law: decode(ids) is the joined token_bytes of the ids read as UTF-8, each byte that is no UTF-8 becoming
    U+FFFD as in `bytes.decode("utf-8", "replace")`. So a stream of tokens has one text however it is cut.
    """

    @property
    def kind(self) -> str:
        """Which tokenizer: "byte", "char" or "bpe"."""

    @property
    def vocab_size(self) -> int:
        """How many ids there are: 0 to vocab_size - 1."""

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """The ids of tokens that are marks and not text, by their spelling."""

    @property
    def eos_id(self) -> int | None:
        """The id that ends an answer, if the vocabulary has one."""

    def encode(self, text: str) -> list[int]:
        """Ids of the text. TokenizerError if it holds a lone surrogate, which no UTF-8 can carry."""

    def encode_array(self, text: str) -> TokenArray:
        """The same ids as `encode` in a compact array, for corpora: uint16 where the vocabulary fits, else uint32."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids. TokenizerError names an id outside the vocabulary."""

    def token_bytes(self, token_id: int) -> bytes:
        """What this token adds to the output: UTF-8 bytes, perhaps only a part of a character."""

    def to_json(self) -> str:
        """The content of tokenizer.json, from which `load_tokenizer` makes an equal tokenizer."""


def token_dtype(vocab_size: int) -> np.dtype[np.uint16] | np.dtype[np.uint32]:
    """The smallest of uint16 and uint32 that holds every id."""
    return np.dtype(np.uint16) if vocab_size <= 1 << 16 else np.dtype(np.uint32)


def checked_id(token_id: int, vocab_size: int) -> int:
    """The id itself; TokenizerError if it is outside the vocabulary (negative ids would count from the end)."""
    if not 0 <= token_id < vocab_size:
        raise TokenizerError(f"token id {token_id} is outside the vocabulary of {vocab_size} (0 to {vocab_size - 1})")
    return token_id


def utf8_bytes(text: str) -> bytes:
    """The text in UTF-8; TokenizerError names a lone surrogate and its place."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise lone_surrogate(error) from None


def lone_surrogate(error: UnicodeEncodeError) -> TokenizerError:
    """The error of a text that Python can hold and no Unicode encoding can."""
    found = ord(error.object[error.start])
    return TokenizerError(
        f"the text holds a lone surrogate (U+{found:04X}, character {error.start}), which is no Unicode text; "
        f"remove it or replace it with U+FFFD"
    )


def joined_text(pieces: Iterable[bytes]) -> str:
    """Token bytes as text, whatever a token cut in two made whole again."""
    return b"".join(pieces).decode("utf-8", "replace")
