"""Save a model as a folder, and load it, never executing what was loaded."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from functions.llm.checkpoints.tensor_file import TensorFile, TensorFileError, format_tensors, open_tensor_file
from functions.llm.checkpoints.weights import params_of, tensors_of
from functions.llm.models import ConfigError, RecurrentLM, build_model, model_config
from functions.llm.tokenizers import Tokenizer, TokenizerError, load_tokenizer

FORMAT = 1

VERIFIED_AT_ONCE_BYTES = 32 << 20
"""Weights of which SHA-256 takes longer than 20 ms or so are not hashed while somebody waits for the first token."""


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message names the file, what is there and what was expected."""


@dataclass(frozen=True)
class Checkpoint:
    """A model that is ready to run, and where it came from.

    Args:
        name: the folder's name, which is the model's name in the API.
        model: the model, parameters in memory.
        tokenizer: the text's way in and out.
        digest: SHA-256 of model.safetensors, hexadecimal.
        size_bytes: size of model.safetensors.
        path: the folder.
        weights: the open model.safetensors, which the parameters are views of; None if they never were in a file.
    """

    name: str
    model: RecurrentLM
    tokenizer: Tokenizer
    digest: str
    size_bytes: int
    path: Path
    weights: TensorFile | None = None

    @property
    def verified(self) -> bool:
        """Whether the weights have been read, and are what the digest says."""
        return self.weights is None or (self.weights.hashed and self.weights.digest() == self.digest)

    def verify(self) -> None:
        """Refuse weights whose SHA-256 is not the digest; the first call reads all of them, the others know."""
        if self.weights is not None and (found := self.weights.digest()) != self.digest:
            raise CheckpointError(
                f"{self.path / 'model.safetensors'}: SHA-256 is {found}, config.json says {self.digest}; "
                "the file was changed or cut short, copy the checkpoint again"
            )


def load_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint in the folder ``path``, with names, shapes and digest checked."""
    checkpoint = open_checkpoint(path)
    checkpoint.verify()
    return checkpoint


def open_checkpoint(path: Path) -> Checkpoint:
    """Return the same as `load_checkpoint`, but leave the digest of large weights to a later `Checkpoint.verify`.

    So it takes milliseconds, however large the weights: they are read when they are used.
    """
    config = read_config(path)
    weights_file = path / "model.safetensors"
    try:
        weights = open_tensor_file(weights_file)
        model = build_model(model_config(config["model"]), params_of(weights.tensors))
        tokenizer = load_tokenizer(path / "tokenizer.json")
    except TensorFileError as error:
        raise CheckpointError(
            f"{weights_file}: not a whole safetensors file ({error}); copy the checkpoint again"
        ) from error
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except TokenizerError as error:
        raise CheckpointError(str(error)) from error
    except OSError as error:
        raise CheckpointError(f"{error.filename}: {error.strerror}") from error
    if tokenizer.kind != config["tokenizer"]:
        raise CheckpointError(f"{path}: tokenizer.json is {tokenizer.kind}, config.json says {config['tokenizer']!r}")
    if tokenizer.vocab_size != model.config.vocab_size:
        raise CheckpointError(
            f"{path}: the tokenizer has {tokenizer.vocab_size} tokens, the model's vocabulary {model.config.vocab_size}"
        )
    checkpoint = Checkpoint(path.absolute().name, model, tokenizer, config["digest"], weights.size_bytes, path, weights)
    if weights.size_bytes <= VERIFIED_AT_ONCE_BYTES:
        checkpoint.verify()
    return checkpoint


def read_config(path: Path) -> dict[str, Any]:
    """Return config.json of the checkpoint folder ``path``: cheap, without its weights."""
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such folder; a checkpoint is a folder with config.json in it")
    file = path / "config.json"
    return parse_config(_read(file), str(file))


def parse_config(content: bytes, source: str) -> dict[str, Any]:
    """Return what a config.json's ``content`` says; errors begin with ``source``, the place it came from."""
    try:
        config = json.loads(content)
    except ValueError as error:
        raise CheckpointError(f"{source}: not JSON ({error})") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise CheckpointError(f"{source}: format is {found!r}, this version reads {FORMAT}")
    for name, kind in {"model": dict, "tokenizer": str, "digest": str}.items():
        if not isinstance(config.get(name), kind):
            raise CheckpointError(f"{source}: {name} is {config.get(name)!r}, expected a {kind.__name__}")
    return config


def save_checkpoint(path: Path, model: RecurrentLM, tokenizer: Tokenizer, card: str) -> None:
    """Write the checkpoint folder ``path``.

    A new folder appears whole or not at all. In an existing one each file is replaced in one step; cut off between two
    of them, the folder's digest disagrees: it does not load, except that `open_checkpoint` takes weights of more than
    VERIFIED_AT_ONCE_BYTES and the same shapes, which may give wrong text until `Checkpoint.verify` has refused them.
    """
    weights = format_tensors(tensors_of(model.params))
    hashed = hashlib.sha256()
    for piece in weights:
        hashed.update(piece)
    config = {
        "format": FORMAT,
        "model": {"family": model.config.family} | asdict(model.config),
        "tokenizer": tokenizer.kind,
        "digest": hashed.hexdigest(),
    }
    files: dict[str, Content] = {
        "model.safetensors": weights,
        "tokenizer.json": tokenizer.to_json().encode(),
        "card.md": card.encode(),
        # Last: until it is there, the digest of the folder's older config.json disowns the new weights.
        "config.json": (json.dumps(config, indent=2) + "\n").encode(),
    }
    replace_files(path, files)


Content = bytes | list[bytes | memoryview]
"""Of a file: whole, or in pieces."""


def replace_files(path: Path, files: Mapping[str, Content]) -> None:
    """Put ``files`` into the folder ``path`` in this order, each whole or not at all; a new folder appears complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # An existing folder may be a disk of its own, to which nothing can be renamed from beside it.
    beside = path if path.is_dir() else path.parent
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=beside) as temporary:
        staged = Path(temporary) / path.name
        staged.mkdir()
        for name, content in files.items():
            with (staged / name).open("wb") as file:
                file.writelines([content] if isinstance(content, bytes) else content)
                file.flush()
                os.fsync(file.fileno())
        if not path.exists():
            staged.rename(path)
            return
        for name in files:
            (staged / name).replace(path / name)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file}: {error.strerror}") from error
