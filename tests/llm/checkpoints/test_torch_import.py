"""An imported checkpoint is torch's model, to the number and to the letter."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from functions.llm.checkpoints import torch_import
from functions.llm.checkpoints.torch_import import import_card, import_torch_checkpoint
from functions.llm.checkpoints.torch_reader import TorchFileError
from functions.llm.models import LSTM, LSTMConfig
from functions.llm.tokenizers import ByteTokenizer, CharTokenizer, Tokenizer, train_bpe

HERE = Path(__file__).parent

WriteTorchFile = Callable[..., Path]


@pytest.fixture(scope="module")
def checkpoint(shared_dir: Path) -> Path:
    """The predecessor's checkpoint that the reference values were made from."""
    file = shared_dir / "fixtures" / "huginn-lstm-char.pt"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == reference()["checkpoint_sha256"]
    return file


def reference() -> dict[str, Any]:
    return json.loads((HERE / "torch_reference.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def imported(checkpoint: Path) -> tuple[LSTM, Tokenizer]:
    return import_torch_checkpoint(checkpoint)


def test_logits_are_those_of_torch(imported: tuple[LSTM, Tokenizer]):
    """To 1e-4 at each of 64 positions; float32 sums in another order differ by up to 4e-5 here."""
    model, tokenizer = imported
    expected = np.load(HERE / "torch_reference.npz")["logits"]
    for prompt, text, torch_logits in zip(*[reference()[key] for key in ("prompts", "greedy")], expected, strict=True):
        ids = jnp.array([tokenizer.encode(prompt + text)[: len(torch_logits)]])
        logits, _ = model.scan(ids, model.init_state(1))
        np.testing.assert_allclose(np.asarray(logits[0]), torch_logits, rtol=0, atol=1e-4)


def test_greedy_text_is_that_of_torch(imported: tuple[LSTM, Tokenizer]):
    """240 characters after each of four French prompts, one with characters that the vocabulary lacks."""
    model, tokenizer = imported
    step = jax.jit(type(model).step)
    for prompt, expected in zip(reference()["prompts"], reference()["greedy"], strict=True):
        assert len(expected) >= 200
        logits, state = model.scan(jnp.array([tokenizer.encode(prompt)]), model.init_state(1))
        chosen, ids = jnp.argmax(logits[:, -1], axis=-1), []
        for _ in expected:
            ids.append(int(chosen[0]))
            logits, state = step(model, chosen, state)
            chosen = jnp.argmax(logits, axis=-1)
        assert tokenizer.decode(ids) == expected


# Small checkpoints made here: what a file may leave out, and what it may not get wrong.

CHARS = ["e", " ", "é", "\n", "a"]
CONFIG = {"emb": 3, "hid": 2, "layers": 2, "dropout": 0.1}


def content(vocab_size: int = len(CHARS), dtype: Any = np.float32, **keys: Any) -> dict[str, Any]:
    """A whole checkpoint of small numbers, exact in every type."""
    shapes = LSTMConfig(vocab_size, **CONFIG).param_shapes()
    state_dict = {
        name: (np.arange(np.prod(shape)).reshape(shape) % 13 / 8 - 0.75).astype(dtype) for name, shape in shapes.items()
    }
    return {"state_dict": state_dict, "config": dict(CONFIG), "chars": CHARS} | keys


def without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_every_precision_becomes_float32(write_torch_file: WriteTorchFile, dtype: Any):
    model, tokenizer = import_torch_checkpoint(write_torch_file(content(dtype=dtype)))
    assert tokenizer == CharTokenizer(tuple(CHARS), " ")
    assert model.config == LSTMConfig(5, 3, 2, 2, 0.1)
    for name, expected in content()["state_dict"].items():
        assert model.params[name].dtype == jnp.float32
        np.testing.assert_array_equal(model.params[name], expected)


def test_what_a_trainer_leaves_in_the_file_is_left_aside(write_torch_file: WriteTorchFile):
    """An optimizer's state, a step, a setting of the trainer: the parameters say all of the model."""
    extra = content(optimizer={"state": {0: {"step": 3}}}, step=7, config=CONFIG | {"seq_len": 128})
    model, _ = import_torch_checkpoint(write_torch_file(extra))
    assert model.config.emb == 3


def test_a_checkpoint_without_dropout_has_none(write_torch_file: WriteTorchFile):
    model, _ = import_torch_checkpoint(write_torch_file(content(config=without(CONFIG, "dropout"))))
    assert model.config.dropout == 0.0


BPE = train_bpe(["le corbeau et le corbeau"], 262)


@pytest.mark.parametrize(
    ("described", "expected"),
    [
        ("byte", ByteTokenizer()),
        ({"type": "byte"}, ByteTokenizer()),
        ('{"type": "byte"}', ByteTokenizer()),
        ({"type": "char", "chars": CHARS, "fallback": "e"}, CharTokenizer(tuple(CHARS), "e")),
        (BPE.to_json(), BPE),
        (json.loads(BPE.to_json()), BPE),
    ],
)
def test_the_tokenizer_is_what_the_file_says(write_torch_file: WriteTorchFile, described: Any, expected: Tokenizer):
    values = without(content(expected.vocab_size, tokenizer=described), "chars")
    model, tokenizer = import_torch_checkpoint(write_torch_file(values))
    assert tokenizer.to_json() == expected.to_json()
    assert model.config.vocab_size == expected.vocab_size


DEEP = b"]" * 100_000 + b"a" * 99_999
ENDLESS = b"]q\x05h\x05a"
# Each list holds the one before it ten times: 300 bytes here, 10**30 characters in JSON.
MANIFOLD = b"](]q\x05" + b"".join(b"](" + b"h\x05" * 10 + b"eq\x05" for _ in range(30)) + b"e"
NAN = np.full((5, 2), np.nan, np.float32)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1], "holds a list, expected a dict with state_dict and config"),
        (content()["state_dict"], "has neither chars .* nor tokenizer"),
        (without(content(), "state_dict"), "state_dict is None, expected a dict of tensors"),
        (content(state_dict={}), "state_dict is a dict, expected a dict of tensors"),
        (content(state_dict={"emb.weight": 3}), r"state_dict\['emb.weight'\] is 3, expected a tensor"),
        (content(state_dict={1: NAN}), r"state_dict\[1\] is a ndarray, expected a tensor with a name"),
        (without(content(), "config"), "config is None, expected a dict of emb, hid, layers and dropout"),
        (content(config=without(CONFIG, "hid")), "config.hid is None, expected a whole number"),
        (content(config=CONFIG | {"emb": 3.0}), "config.emb is 3.0, expected a whole number"),
        (content(config=CONFIG | {"emb": True}), "config.emb is True, expected a whole number"),
        (content(config=CONFIG | {"hid": 0}), "config.hid is 0"),
        (content(config=CONFIG | {"layers": 1 << 60}), "config.layers is 1152921504606846976, but state_dict has 11"),
        (content(config=CONFIG | {"layers": 1}), r"rnn.bias_hh_l1 is not a parameter"),
        (content(config=CONFIG | {"layers": 3}), "rnn.bias_hh_l2 is missing"),
        (content(config=CONFIG | {"hid": 4}), r"rnn.weight_ih_l0 has shape \(8, 3\), the config says \(16, 3\)"),
        (content(config=CONFIG | {"dropout": 1.5}), "config.dropout is 1.5"),
        (content(config=CONFIG | {"dropout": "0"}), "config.dropout is '0', expected a number"),
        (content(chars=CHARS[:-1]), "emb.weight has 5 rows, but the vocabulary has 4 tokens"),
        (content(chars=["a"] * 5), "chars holds 'a' more than once"),
        (content(chars=[*CHARS[:-1], "ab"]), r"chars\[4\] is 'ab'"),
        (content(chars=[*CHARS[:-1], "\ud800"]), r"chars\[4\] is '\\ud800'"),
        (content(chars="e éa\n"), "chars is no list of characters"),
        (content(chars=None), "has neither chars .* nor tokenizer"),
        (content(chars=None, tokenizer="word"), "tokenizer: is not JSON"),
        (content(chars=None, tokenizer={"type": "word"}), "tokenizer: type is 'word'"),
        (content(chars=None, tokenizer={"type": NAN}), "tokenizer is no JSON object"),
        (content(state_dict=content()["state_dict"] | {"head.weight": NAN}), "head.weight has 10 numbers that are not"),
        (content(dtype=np.int32), "emb.weight has numbers of type int32, expected floating point"),
        # Values that would exhaust whoever walks or prints them.
        (content(chars=DEEP), "chars is no list of characters"),
        (content(chars=ENDLESS), "chars is no list of characters"),
        (content(config=DEEP), "config is a list"),
        (content(config=CONFIG | {"emb": ENDLESS}), "config.emb is a list"),
        (content(config=CONFIG | {"dropout": DEEP}), "config.dropout is a list, expected a number"),
        (content(state_dict=CONFIG | {"x": DEEP}), "expected a tensor"),
        (content(chars=None, tokenizer={"type": DEEP}), "tokenizer is no JSON object"),
        (content(chars=None, tokenizer={"type": ENDLESS}), "tokenizer is no JSON object"),
        (content(chars=None, tokenizer={"type": MANIFOLD}), "tokenizer has more than 1000000 characters as JSON"),
    ],
)
def test_what_is_wrong_is_named(
    write_torch_file: WriteTorchFile, monkeypatch: pytest.MonkeyPatch, values: Any, message: str
):
    monkeypatch.setattr(torch_import, "MAX_TOKENIZER_CHARS", 1_000_000)  # as much as a test may wait for
    file = write_torch_file(values)
    with pytest.raises(TorchFileError, match=message) as caught:
        import_torch_checkpoint(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert len(str(caught.value)) < 400


def test_the_card_tells_the_file_to_the_byte(write_torch_file: WriteTorchFile):
    file = write_torch_file(content())
    card = import_card(file, *import_torch_checkpoint(file))
    assert hashlib.sha256(file.read_bytes()).hexdigest() in card
    assert "`rnn.pt`" in card
    assert "| `rnn.weight_ih_l0` | 8 x 3 |" in card
    assert "| parameters | 134 |" in card
