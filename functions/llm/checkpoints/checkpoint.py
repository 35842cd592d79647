"""Save a model as a folder, and load it, never executing what was loaded."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse_safetensors
from safetensors.numpy import save as format_safetensors

from functions.llm.models import ConfigError, RecurrentLM, build_model, model_config
from functions.llm.tokenizers import Tokenizer, TokenizerError, load_tokenizer

FORMAT = 1


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
    """

    name: str
    model: RecurrentLM
    tokenizer: Tokenizer
    digest: str
    size_bytes: int
    path: Path


def load_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint in the folder ``path``, with names, shapes and digest checked."""
    config = read_config(path)
    weights_file = path / "model.safetensors"
    weights = _read(weights_file)
    digest = hashlib.sha256(weights).hexdigest()
    if digest != config["digest"]:
        raise CheckpointError(
            f"{weights_file}: SHA-256 is {digest}, config.json says {config['digest']}; "
            "the file was changed or cut short, copy the checkpoint again"
        )
    try:
        params = {name: jnp.asarray(array) for name, array in parse_safetensors(weights).items()}
        model = build_model(model_config(config["model"]), params)
        tokenizer = load_tokenizer(path / "tokenizer.json")
    except SafetensorError as error:
        raise CheckpointError(f"{weights_file}: not a safetensors file ({error})") from error
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
    return Checkpoint(path.absolute().name, model, tokenizer, digest, len(weights), path)


def read_config(path: Path) -> dict[str, Any]:
    """Return config.json of the checkpoint folder ``path``: cheap, without its weights."""
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such folder; a checkpoint is a folder with config.json in it")
    file = path / "config.json"
    try:
        config = json.loads(_read(file))
    except ValueError as error:
        raise CheckpointError(f"{file}: not JSON ({error})") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise CheckpointError(f"{file}: format is {found!r}, this version reads {FORMAT}")
    for name, kind in {"model": dict, "tokenizer": str, "digest": str}.items():
        if not isinstance(config.get(name), kind):
            raise CheckpointError(f"{file}: {name} is {config.get(name)!r}, expected a {kind.__name__}")
    return config


def save_checkpoint(path: Path, model: RecurrentLM, tokenizer: Tokenizer, card: str) -> None:
    """Write the checkpoint folder ``path``.

    A new folder appears whole or not at all. In an existing one each file is replaced in one step; cut off between two
    of them, the folder does not load (its digest disagrees) and never gives wrong text.
    """
    weights = format_safetensors({name: np.asarray(array) for name, array in sorted(model.params.items())})
    config = {
        "format": FORMAT,
        "model": {"family": model.config.family} | asdict(model.config),
        "tokenizer": tokenizer.kind,
        "digest": hashlib.sha256(weights).hexdigest(),
    }
    files = {
        "model.safetensors": weights,
        "tokenizer.json": tokenizer.to_json().encode(),
        "card.md": card.encode(),
        # Last: until it is there, the digest of the folder's older config.json disowns the new weights.
        "config.json": (json.dumps(config, indent=2) + "\n").encode(),
    }
    replace_files(path, files)


def replace_files(path: Path, files: Mapping[str, bytes]) -> None:
    """Put ``files`` into the folder ``path`` in this order, each whole or not at all; a new folder appears complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # An existing folder may be a disk of its own, to which nothing can be renamed from beside it.
    beside = path if path.is_dir() else path.parent
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=beside) as temporary:
        staged = Path(temporary) / path.name
        staged.mkdir()
        for name, content in files.items():
            with (staged / name).open("wb") as file:
                file.write(content)
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
