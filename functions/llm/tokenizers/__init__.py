"""Tokenizers: bytes, characters and byte-level BPE, told apart by what tokenizer.json says."""

import json
from pathlib import Path

from functions.llm.tokenizers.bpe import BPETokenizer, train_bpe
from functions.llm.tokenizers.byte import ByteTokenizer
from functions.llm.tokenizers.char import CharTokenizer
from functions.llm.tokenizers.stream_decoder import StreamDecoder
from functions.llm.tokenizers.tokenizer import Tokenizer, TokenizerError

__all__ = [
    "BPETokenizer",
    "ByteTokenizer",
    "CharTokenizer",
    "StreamDecoder",
    "Tokenizer",
    "TokenizerError",
    "load_tokenizer",
    "parse_tokenizer",
    "train_bpe",
]


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json; TokenizerError names the file, the field, what it is and what it should be."""
    try:
        source = path.read_text(encoding="utf-8")
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path}: byte {error.start} is not UTF-8, expected a tokenizer.json") from error
    return parse_tokenizer(source, str(path))


def parse_tokenizer(source: str, name: str) -> Tokenizer:
    """The tokenizer that a tokenizer.json's content describes; errors begin with `name`, the place it came from."""
    try:
        return _from_description(source)
    except TokenizerError as error:
        raise TokenizerError(f"{name}: {error}") from error


def _from_description(source: str) -> Tokenizer:
    try:
        description = json.loads(source)
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"is not JSON: {error}") from error
    if not isinstance(description, dict):
        raise TokenizerError(f"holds a JSON {type(description).__name__}, expected an object")
    if "model" in description:
        return BPETokenizer.from_json(source)
    match description.get("type"):
        case "byte":
            return ByteTokenizer()
        case "char":
            return _char_tokenizer(description)
        case found:
            raise TokenizerError(
                f"type is {found!a:.60}, expected 'byte' or 'char' (or the tokenizers library's own JSON, with a model)"
            )


def _char_tokenizer(description: dict[str, object]) -> CharTokenizer:
    chars = description.get("chars")
    if not isinstance(chars, list) or not all(isinstance(char, str) for char in chars):
        raise TokenizerError("chars is missing or no list of strings, expected the characters in the order of ids")
    if "fallback" not in description:
        return CharTokenizer.from_chars(chars)
    fallback = description["fallback"]
    if not isinstance(fallback, str):
        raise TokenizerError(f"fallback is a {type(fallback).__name__}, expected one of chars")
    return CharTokenizer(tuple(chars), fallback)
