"""The predecessor's torch checkpoints as models of ours."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from functions.llm.checkpoints.torch_reader import TorchFileError, read_torch_file
from functions.llm.models.lstm import LSTM, LSTMConfig
from functions.llm.models.recurrent_lm import ConfigError, check_params
from functions.llm.tokenizers import ByteTokenizer, CharTokenizer, Tokenizer, TokenizerError, parse_tokenizer

MAX_TOKENIZER_CHARS = 64 << 20


def import_torch_checkpoint(source: Path) -> tuple[LSTM, Tokenizer]:
    """The model and the tokenizer of a predecessor's checkpoint, every name, shape and number checked.

    The file is a dict of `state_dict`; `config` with emb, hid, layers and dropout; and the vocabulary: `chars`, a
    list of characters, or `tokenizer`: "byte", the tokenizers library's JSON, or {"type": ...} as in tokenizer.json.
    Other keys (an optimizer's state, a step) are left aside. Weights of less or more precision become float32.

    Raises:
        TorchFileError: names the file, the field or tensor, what it is and what was expected.
    """
    content = read_torch_file(source)
    try:
        if not isinstance(content, dict):
            raise TorchFileError(f"holds a {type(content).__name__}, expected a dict with state_dict and config")
        tokenizer = _tokenizer(content)
        tensors = _tensors(content.get("state_dict"))
        config = _config(content.get("config"), tokenizer.vocab_size, len(tensors))
        shape = tensors["emb.weight"].shape if "emb.weight" in tensors else ()
        rows = shape[0] if shape else config.vocab_size
        if rows != config.vocab_size:
            raise TorchFileError(f"emb.weight has {rows} rows, but the vocabulary has {config.vocab_size} tokens")
        params = {name: jnp.asarray(_weights(name, tensor)) for name, tensor in tensors.items()}
        check_params(config, params)
    except (TorchFileError, ConfigError, TokenizerError) as error:
        raise TorchFileError(f"{source}: {error}") from error
    return LSTM(config, params), tokenizer


def import_card(source: Path, model: LSTM, tokenizer: Tokenizer) -> str:
    """The card.md of an imported checkpoint: which file it was, to the byte, and what was in it."""
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    config, shapes = model.config, {name: tuple(param.shape) for name, param in model.params.items()}
    rows = "\n".join(f"| `{name}` | {' x '.join(map(str, shape))} |" for name, shape in shapes.items())
    return f"""# An LSTM imported from torch

Made by `huginn import`: the numbers of the file in float32, and nothing was trained.

| | |
|---|---|
| file | `{source.name}` |
| SHA-256 | `{digest}` |
| architecture | embedding {config.emb}, {config.layers} LSTM layers of {config.hid}, linear head |
| dropout in training | {config.dropout} |
| tokenizer | {tokenizer.kind}, {tokenizer.vocab_size} tokens |
| parameters | {count_parameters(model):,} |

| tensor | shape |
|---|---|
{rows}
"""


def count_parameters(model: LSTM) -> int:
    """How many numbers the model has learnt."""
    return sum(param.size for param in model.params.values())


def _tokenizer(content: Mapping[object, object]) -> Tokenizer:
    chars, described = content.get("chars"), content.get("tokenizer")
    if chars is not None:
        if not isinstance(chars, list) or not all(isinstance(char, str) for char in chars):
            raise TorchFileError("chars is no list of characters")
        return CharTokenizer.from_chars(chars)
    if described == "byte":
        return ByteTokenizer()
    if isinstance(described, str):
        return parse_tokenizer(described, "tokenizer")
    if isinstance(described, dict):
        return parse_tokenizer(_json(described), "tokenizer")
    raise TorchFileError("has neither chars (a list of characters) nor tokenizer (a string or an object)")


def _json(described: dict[object, object]) -> str:
    pieces, size = [], 0
    try:
        for piece in json.JSONEncoder().iterencode(described):
            pieces.append(piece)
            size += len(piece)
            # A pickle can hold one list ten times in another, that one ten times in a third: endless as JSON.
            if size > MAX_TOKENIZER_CHARS:
                break
    except (TypeError, RecursionError, ValueError) as error:
        raise TorchFileError(f"tokenizer is no JSON object: {error}") from error
    if size > MAX_TOKENIZER_CHARS:
        raise TorchFileError(f"tokenizer has more than {MAX_TOKENIZER_CHARS} characters as JSON")
    return "".join(pieces)


def _tensors(state_dict: object) -> dict[str, np.ndarray]:
    if not isinstance(state_dict, dict) or not state_dict:
        raise TorchFileError(f"state_dict is {_what(state_dict)}, expected a dict of tensors")
    for name, tensor in state_dict.items():
        if not isinstance(name, str) or not isinstance(tensor, np.ndarray):
            raise TorchFileError(f"state_dict[{name!a:.60}] is {_what(tensor)}, expected a tensor with a name")
    return state_dict


def _config(values: object, vocab_size: int, tensors: int) -> LSTMConfig:
    if not isinstance(values, dict):
        raise TorchFileError(f"config is {_what(values)}, expected a dict of emb, hid, layers and dropout")
    dropout = values.get("dropout", 0.0)
    if type(dropout) not in {int, float}:
        raise TorchFileError(f"config.dropout is {_what(dropout)}, expected a number")
    emb, hid, layers = (_size(values, name) for name in ("emb", "hid", "layers"))
    # Before anybody makes a list of so many layers.
    if layers > tensors:
        raise TorchFileError(f"config.layers is {layers}, but state_dict has {tensors} tensors in all")
    try:
        return LSTMConfig(vocab_size, emb, hid, layers, dropout)
    except ConfigError as error:
        raise TorchFileError(f"config.{error}") from error


def _size(config: Mapping[object, object], name: str) -> int:
    size = config.get(name)
    if type(size) is not int:
        raise TorchFileError(f"config.{name} is {_what(size)}, expected a whole number")
    return size


def _weights(name: str, tensor: np.ndarray) -> np.ndarray:
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        raise TorchFileError(f"{name} has numbers of type {tensor.dtype}, expected floating point")
    weights = tensor.astype(np.float32)
    if broken := np.count_nonzero(~np.isfinite(weights)):
        raise TorchFileError(f"{name} has {broken} numbers that are not finite: its training has diverged")
    return weights


def _what(value: object) -> str:
    """A value in an error: short ones as they are, others by type, for they may be deep or endless."""
    return f"{value!a:.40}" if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
