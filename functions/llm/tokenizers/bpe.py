"""Byte-level BPE of the `tokenizers` library: trained, saved and loaded as the library's own JSON."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from functions.llm.tokenizers.tokenizer import (
    TokenArray,
    TokenizerError,
    checked_id,
    joined_text,
    token_dtype,
    utf8_bytes,
)

if TYPE_CHECKING:
    # At run time it is imported where a BPE is made or read: other tokenizers start without it.
    import tokenizers

# Marks of a dialogue; a trained vocabulary begins with them, in this order.
SPECIAL_TOKENS = ("<|prompt|>", "<|endprompt|>", "<|answer|>", "<|endanswer|>")
END_OF_ANSWER = "<|endanswer|>"

# The library keeps about 100 bytes a token while it encodes: 64 pieces of 16,384 characters at a time bound that.
PIECE_CHARS = 1 << 14
BATCH_PIECES = 64

# No pre-tokenizer joins a letter or digit to the space or line end after it, so encoding the two sides of such a
# place apart gives the same tokens as encoding them together.
CUT = re.compile(r"(?<=[^\W_])[ \n]")


class BPETokenizer:
    """Byte-level BPE: any text is some sequence of its tokens, for every byte is a token.

    Law: decode(encode(text)) == text for every Unicode text, the spellings of special tokens included.
    (A file made elsewhere may break the law by a normalizer of its own.)
    """

    kind: ClassVar[str] = "bpe"

    def __init__(self, library: "tokenizers.Tokenizer") -> None:
        """Wrap a tokenizer of the library; TokenizerError names what is not byte-level BPE in it."""
        _check_description(json.loads(library.to_str()))
        library.no_truncation()
        library.no_padding()
        self._library = library
        self._bytes = _bytes_of_tokens(library)
        added = sorted(library.get_added_tokens_decoder().items())
        self._special_tokens = MappingProxyType({token.content: i for i, token in added if token.special})

    @classmethod
    def from_json(cls, source: str) -> Self:
        """The tokenizer of the library's JSON; TokenizerError names the field that does not fit."""
        import tokenizers

        try:
            library = tokenizers.Tokenizer.from_str(source)
        except Exception as error:  # the library raises bare Exception
            raise TokenizerError(f"the tokenizers library refuses it: {error}") from error
        return cls(library)

    @property
    def vocab_size(self) -> int:
        """The number of tokens, special ones included."""
        return len(self._bytes)

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """Ids of the special tokens by their spelling."""
        return self._special_tokens

    @property
    def eos_id(self) -> int | None:
        """The id of <|endanswer|>, if the vocabulary has it."""
        return self._special_tokens.get(END_OF_ANSWER)

    def encode(self, text: str) -> list[int]:
        """Ids of the text; a special token's spelling becomes its one id."""
        utf8_bytes(text)
        ids: list[int] = self._library.encode(text, add_special_tokens=False).ids
        return ids

    def encode_array(self, text: str) -> TokenArray:
        """Ids of the text, encoded in parallel pieces: in memory at a time are the ids and a batch of pieces."""
        utf8_bytes(text)
        dtype = token_dtype(self.vocab_size)
        arrays = [np.empty(0, dtype)]
        pieces = _pieces(text)
        while batch := list(islice(pieces, BATCH_PIECES)):
            encodings = self._library.encode_batch_fast(batch, add_special_tokens=False)
            arrays.extend(np.array(encoding.ids, dtype) for encoding in encodings)
        return np.concatenate(arrays)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, special tokens as they are spelled."""
        return joined_text(map(self.token_bytes, ids))

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that the token stands for, a special token's being its spelling."""
        return self._bytes[checked_id(token_id, len(self._bytes))]

    def to_json(self) -> str:
        """The library's JSON."""
        return self._library.to_str()


def train_bpe(texts: Iterable[str], vocab_size: int) -> BPETokenizer:
    """A byte-level BPE learnt from the texts: special tokens first, then the 256 bytes, then merges.

    The same texts in the same order give the same tokenizer.json. A text with too few different pairs gives a
    smaller vocabulary than asked for.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    smallest = len(SPECIAL_TOKENS) + 256
    if vocab_size < smallest:
        raise TokenizerError(f"vocab_size is {vocab_size}, a byte-level BPE needs at least {smallest}")
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,  # a pair seen once saves nothing anywhere else
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    library.train_from_iterator(_training_pieces(texts), trainer)
    return BPETokenizer(library)


def _training_pieces(texts: Iterable[str]) -> Iterator[str]:
    """The texts in pieces and without special tokens, whose spellings must not become merges."""
    special = re.compile("|".join(map(re.escape, SPECIAL_TOKENS)))
    for text in texts:
        utf8_bytes(text)
        for part in special.split(text):
            yield from _pieces(part)


def _pieces(text: str) -> Iterator[str]:
    """The text cut where no token can cross, in pieces of PIECE_CHARS characters or, without such a place, more."""
    start = 0
    while start < len(text):
        cut = CUT.search(text, start + PIECE_CHARS)
        end = cut.start() if cut else len(text)
        yield text[start:end]
        start = end


def _check_description(description: dict[str, Any]) -> None:
    """Refuse what is not byte-level BPE, or does not encode a text the same way every time."""
    model, splitter = description["model"], description["pre_tokenizer"] or {}
    if model["type"] != "BPE":
        raise TokenizerError(f"model.type is {model['type']!r}, expected 'BPE'")
    if model.get("dropout"):
        raise TokenizerError(f"model.dropout is {model['dropout']}, expected null: dropout makes encoding random")
    splitters = splitter.get("pretokenizers", [splitter])
    if not any(part.get("type") == "ByteLevel" for part in splitters):
        found = [part.get("type") for part in splitters]
        raise TokenizerError(f"pre_tokenizer is {found}, expected 'ByteLevel' in it")


def _bytes_of_tokens(library: "tokenizers.Tokenizer") -> tuple[bytes, ...]:
    """What each id stands for; TokenizerError if ids have gaps, or a byte has no token and would be lost."""
    byte_of = _byte_alphabet()
    spelled = {token_id: token.content for token_id, token in library.get_added_tokens_decoder().items()}
    vocabulary = library.get_vocab(with_added_tokens=True)
    if missing := byte_of.keys() - vocabulary.keys():
        raise TokenizerError(f"model.vocab lacks {len(missing)} of the 256 byte tokens, {min(missing)!r} among them")
    token_of = {token_id: token for token, token_id in vocabulary.items()}
    if sorted(token_of) != list(range(len(vocabulary))):
        raise TokenizerError(f"model.vocab has {len(vocabulary)} tokens, expected ids 0 to {len(vocabulary) - 1}")
    pieces = []
    for token_id in range(len(vocabulary)):
        token = token_of[token_id]
        if token_id in spelled:
            pieces.append(spelled[token_id].encode())
        elif byte_of.keys() >= set(token):
            pieces.append(bytes(byte_of[char] for char in token))
        else:
            raise TokenizerError(f"model.vocab[{token!r}] is not written in the byte-level alphabet")
    return tuple(pieces)


def _byte_alphabet() -> dict[str, int]:
    """The byte behind each letter of byte-level BPE (GPT-2's table).

    Printable bytes of Latin-1 stand for themselves, the other 68 for the code points from U+0100 on, in order.
    """
    itself = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in itself]
    return {chr(byte): byte for byte in itself} | {chr(256 + i): byte for i, byte in enumerate(others)}
