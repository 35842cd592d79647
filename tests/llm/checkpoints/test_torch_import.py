"""An imported checkpoint is torch's model, to the number and to the letter."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functions.llm.checkpoints.torch_import import import_card, import_torch_checkpoint
from functions.llm.checkpoints.torch_reader import TorchFileError
from functions.llm.models import LSTM
from functions.llm.tokenizers import ByteTokenizer, CharTokenizer, Tokenizer, train_bpe

HERE = Path(__file__).parent


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
    """To 1e-4 at each of 64 positions; float32 sums in another order differ by about 1e-5 here."""
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
