"""Checkpoint folders: whole or not at all, and checked when they are loaded."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from functions.llm.checkpoints import checkpoint as checkpoint_module
from functions.llm.checkpoints.checkpoint import (
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    open_checkpoint,
    save_checkpoint,
)
from functions.llm.commands.default_checkpoint import default_checkpoint
from functions.llm.models import LSTM, LSTMConfig, MinGRU, MinGRUConfig
from functions.llm.ops.quantized import QuantizedWeight, quantize
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


def change_tensors(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], None]:
    """Written by the safetensors library, and with the digest that belongs to it."""

    def apply(folder: Path) -> None:
        file = folder / "model.safetensors"
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        change_config(lambda config: config.update(digest=digest))(folder)

    return apply


def cut_off(folder: Path, missing: int) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: max(0, len(content) - missing)])


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
        (change_tensors(lambda tensors: tensors.pop("norm")), "norm is missing"),
        (
            change_tensors(lambda tensors: tensors.update(norm=tensors["norm"].astype(np.float64))),
            "has the dtype 'F64'; known are",
        ),
        (lambda folder: cut_off(folder, 1), "cut short"),
        (lambda folder: cut_off(folder, 10**9), "empty"),
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


def quantized(model: MinGRU) -> MinGRU:
    dense = CONFIG.dense_weights()
    return MinGRU(CONFIG, {name: quantize(p) if name in dense else p for name, p in model.params.items()})


@pytest.fixture
def int8_folder(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "jackdaw", quantized(fresh()), ByteTokenizer(), "# jackdaw\n")
    return tmp_path / "jackdaw"


def test_int8_matrices_are_saved_and_loaded(int8_folder: Path) -> None:
    """As two tensors that any reader can read: the values under the matrix's name, and its scales."""
    expected = quantized(fresh())
    loaded = load_checkpoint(int8_folder).model
    tensors = load_file(int8_folder / "model.safetensors")
    for name, param in expected.params.items():
        found = loaded.params[name]
        if isinstance(param, QuantizedWeight):
            assert name in CONFIG.dense_weights()
            np.testing.assert_array_equal(tensors[name], param.values)
            np.testing.assert_array_equal(tensors[name + ".scale"], param.scale)
            np.testing.assert_array_equal(found.values, param.values)
            np.testing.assert_array_equal(found.scale, param.scale)
        else:
            np.testing.assert_array_equal(found, param)
    tokens = jnp.arange(5)[None]
    for mine, theirs in zip(
        jax.tree.leaves(loaded.scan(tokens, loaded.init_state(1))),
        jax.tree.leaves(expected.scan(tokens, expected.init_state(1))),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("head.weight.scale"), r"head\.weight is int8, and head\.weight\.scale is missing"),
        (lambda t: t.pop("head.weight"), r"head\.weight is missing"),
        (lambda t: t.update({"norm.scale": np.ones(4, np.float32)}), r"norm\.scale is not a parameter"),
        (lambda t: t.update({"head.weight.scale": np.ones(4, np.float32)}), r"expected float32 of shape \(256,\)"),
        (lambda t: t.update({"head.weight.scale": np.ones(256, np.int8)}), r"head\.weight\.scale"),
        (lambda t: t.update({"head.weight.scale": np.zeros(256, np.float32)}), "not above 0"),
        (lambda t: t.update({"head.weight.scale": np.full(256, np.nan, np.float32)}), "not finite"),
        (
            lambda t: t.update({"embedding": t["head.weight"], "embedding.scale": t["head.weight.scale"]}),
            "embedding is int8",
        ),
        (lambda t: t.update({"norm": np.ones(4, np.int8)}), "norm is int8, and norm.scale is missing"),
        (
            lambda t: t.update({"norm": np.ones(4, np.int8), "norm.scale": np.ones(4, np.float32)}),
            "norm is int8 of shape",
        ),
        (lambda t: t.update({"head.weight": t["head.weight"].astype(np.float32)}), "weight.scale is not a parameter"),
    ],
)
def test_scales_that_do_not_fit_are_named(
    int8_folder: Path, change: Callable[[dict[str, np.ndarray]], object], message: str
) -> None:
    change_tensors(change)(int8_folder)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(int8_folder)


def lies_in_its_file(leaf: jax.Array, checkpoint: Checkpoint) -> bool:
    assert checkpoint.weights is not None
    first = np.frombuffer(checkpoint.weights.content, np.uint8).__array_interface__["data"][0]
    return first < leaf.unsafe_buffer_pointer() < first + checkpoint.size_bytes


def test_the_parameters_lie_in_the_file(int8_folder: Path, folder: Path) -> None:
    """What is round is not copied: both the float32 and the int8 arrays are the mapped pages."""
    for checkpoint in (load_checkpoint(int8_folder), load_checkpoint(folder)):
        leaves = [leaf for leaf in jax.tree.leaves(checkpoint.model.params) if leaf.nbytes % 64 == 0]
        assert len(leaves) > 2
        assert all(lies_in_its_file(leaf, checkpoint) for leaf in leaves)


def test_nothing_of_the_bundled_model_is_copied() -> None:
    checkpoint = load_checkpoint(default_checkpoint({}))
    assert all(lies_in_its_file(leaf, checkpoint) for leaf in jax.tree.leaves(checkpoint.model.params))


def test_a_file_of_the_safetensors_library_is_loaded_too(folder: Path) -> None:
    """Its tensors do not begin at multiples of 64 bytes: they are copied."""
    change_tensors(lambda tensors: None)(folder)
    for name, value in fresh().params.items():
        np.testing.assert_array_equal(load_checkpoint(folder).model.params[name], value)


def test_large_weights_are_opened_unread_and_refused_when_they_are_verified(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the digest is checked at once; the digest whenever there is time, and by load_checkpoint before use."""
    open_checkpoint(folder).verify()
    flip_a_bit(folder)
    with pytest.raises(CheckpointError, match="the file was changed or cut short"):
        open_checkpoint(folder)
    monkeypatch.setattr(checkpoint_module, "VERIFIED_AT_ONCE_BYTES", 0)
    opened = open_checkpoint(folder)
    for _ in range(2):
        with pytest.raises(CheckpointError, match="the file was changed or cut short"):
            opened.verify()
    with pytest.raises(CheckpointError, match="the file was changed or cut short"):
        load_checkpoint(folder)
    change_tensors(lambda tensors: tensors.pop("norm"))(folder)
    with pytest.raises(CheckpointError, match="norm is missing"):
        open_checkpoint(folder)
