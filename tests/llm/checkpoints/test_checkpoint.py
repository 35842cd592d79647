"""Checkpoint folders: whole or not at all, and checked when they are loaded."""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from functions.llm.checkpoints.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from functions.llm.models import LSTM, LSTMConfig, MinGRU, MinGRUConfig
from functions.llm.tokenizers import ByteTokenizer, CharTokenizer

CONFIG = MinGRUConfig(vocab_size=256, width=4, hidden=4, layers=1)


def fresh(seed: int = 0) -> MinGRU:
    return MinGRU(CONFIG, MinGRU.init_params(CONFIG, jax.random.key(seed)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "raven", fresh(), ByteTokenizer(), "# raven\n")
    return tmp_path / "raven"


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    lstm = LSTMConfig(vocab_size=4, emb=3, hid=2, layers=2, dropout=0.25)
    model = LSTM(lstm, LSTM.init_params(lstm, jax.random.key(0)))
    save_checkpoint(tmp_path / "a" / "b", model, CharTokenizer.from_text("abcd"), "# b\n")
    loaded = load_checkpoint(tmp_path / "a" / "b")
    assert (loaded.name, loaded.model.config, loaded.tokenizer.encode("dab")) == ("b", lstm, [3, 0, 1])
    assert loaded.size_bytes == (tmp_path / "a" / "b" / "model.safetensors").stat().st_size
    for name, value in model.params.items():
        np.testing.assert_array_equal(loaded.model.params[name], value)


def test_saving_again_replaces_the_model_and_leaves_other_files(folder: Path) -> None:
    (folder / "metrics.jsonl").write_text("{}\n")
    save_checkpoint(folder, fresh(1), ByteTokenizer(), "# raven, again\n")
    assert np.array_equal(load_checkpoint(folder).model.params["embedding"], fresh(1).params["embedding"])
    assert (folder / "metrics.jsonl").read_text() == "{}\n"
    assert [path.name for path in folder.parent.iterdir()] == ["raven"]


def test_a_save_that_was_cut_off_does_not_load_as_a_mixture(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up after the new weights are in place: the folder says so, and serves no wrong text."""
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if Path(target).name == "config.json":
            raise OSError("no space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(folder, fresh(1), ByteTokenizer(), "")
    with pytest.raises(CheckpointError, match=r"config\.json says"):
        load_checkpoint(folder)


def change_config(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))

    return apply


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def drop_a_tensor(folder: Path) -> None:
    import hashlib

    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors["norm"]
    save_file(tensors, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    change_config(lambda config: config.update(digest=digest))(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), r"config\.json: No such file"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"model\.safetensors: No such file"),
        (lambda folder: (folder / "tokenizer.json").unlink(), r"tokenizer\.json: cannot be read"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json: not JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), r"config\.json: format is 'list'"),
        (change_config(lambda config: config.update(format=9)), "format is 9, this version reads 1"),
        (change_config(lambda config: config.pop("digest")), "digest is None, expected a str"),
        (change_config(lambda config: config["model"].update(width=5)), r"embedding has shape \(256, 4\)"),
        (change_config(lambda config: config["model"].update(family="gpt")), "family is 'gpt'"),
        (
            change_config(lambda config: config.update(tokenizer="bpe")),
            r"tokenizer\.json is byte, config\.json says 'bpe'",
        ),
        (flip_a_bit, "the file was changed or cut short"),
        (drop_a_tensor, "norm is missing"),
    ],
)
def test_a_damaged_folder_says_what_is_wrong(folder: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(folder)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)


def test_a_tokenizer_of_another_size_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "raven", fresh(), CharTokenizer.from_text("abc"), "")
    with pytest.raises(CheckpointError, match="the tokenizer has 3 tokens, the model's vocabulary 256"):
        load_checkpoint(tmp_path / "raven")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        load_checkpoint(tmp_path / "nothing")
