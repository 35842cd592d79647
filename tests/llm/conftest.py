"""Small checkpoints: with random weights, on disk like real ones, and with weights that recite."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functions.llm.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from functions.llm.inference.served_model import ServedModel
from functions.llm.models import LSTM, LSTMConfig, MinGRU, MinGRUConfig
from functions.llm.tokenizers import ByteTokenizer, CharTokenizer, Tokenizer

CHARS = "\n !,.abcdefghijklmnopqrstuvwxyzé"


@pytest.fixture(scope="session")
def checkpoints_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny-char (minGRU over characters) and tiny-byte (LSTM over bytes)."""
    folder = tmp_path_factory.mktemp("ckpts")
    chars = CharTokenizer.from_text(CHARS)
    mingru = MinGRUConfig(vocab_size=chars.vocab_size, width=16, hidden=16, layers=1, dropout=0.0)
    save_checkpoint(
        folder / "tiny-char", MinGRU(mingru, MinGRU.init_params(mingru, jax.random.key(1))), chars, "# tiny-char\n"
    )
    lstm = LSTMConfig(vocab_size=256, emb=8, hid=16, layers=1)
    save_checkpoint(
        folder / "tiny-byte", LSTM(lstm, LSTM.init_params(lstm, jax.random.key(2))), ByteTokenizer(), "# tiny-byte\n"
    )
    return folder


def prepared(model: ServedModel) -> ServedModel:
    """The model with all its programs compiled, so that every size of batch is used."""
    for _ in model.programs.prepare():
        pass
    return model


@pytest.fixture(scope="session")
def char_model(checkpoints_folder: Path) -> ServedModel:
    return prepared(ServedModel.of(load_checkpoint(checkpoints_folder / "tiny-char")))


@pytest.fixture(scope="session")
def byte_model(checkpoints_folder: Path) -> ServedModel:
    return prepared(ServedModel.of(load_checkpoint(checkpoints_folder / "tiny-byte")))


Reciter = Callable[[Tokenizer, Mapping[int, int]], ServedModel]


@pytest.fixture(scope="session")
def reciter() -> Reciter:
    """Makes a model that answers each token with the one it is told to, or with itself."""
    return _reciter


def _reciter(tokenizer: Tokenizer, following: Mapping[int, int]) -> ServedModel:
    """An LSTM that only knows its last token: input and output gates stand open, the forget gate shut.

    So h is about tanh(tanh(g)), and g is the token as a one-hot vector.
    """
    size = tokenizer.vocab_size
    nothing = np.zeros((size, size))
    head = np.zeros((size, size))
    for token in range(size):
        head[following.get(token, token), token] = 30.0
    params = {
        "emb.weight": np.eye(size),
        "rnn.weight_ih_l0": np.concatenate([nothing, nothing, np.eye(size) * 20, nothing]),
        "rnn.weight_hh_l0": np.zeros((4 * size, size)),
        "rnn.bias_ih_l0": np.repeat([20.0, -20.0, 0.0, 20.0], size),
        "rnn.bias_hh_l0": np.zeros(4 * size),
        "head.weight": head,
        "head.bias": np.zeros(size),
    }
    config = LSTMConfig(vocab_size=size, emb=size, hid=size, layers=1)
    model = LSTM(config, {name: jnp.asarray(array, jnp.float32) for name, array in params.items()})
    return ServedModel.of(Checkpoint("reciter", model, tokenizer, "0" * 64, 0, Path()))


@pytest.fixture(scope="session")
def reciting(reciter: Reciter) -> Callable[[str], ServedModel]:
    """Makes a model that goes on with a text, whose bytes must differ, after the byte 0."""

    def recite(spoken: str) -> ServedModel:
        codes = [0, *spoken.encode()]
        assert len(set(codes)) == len(codes)
        return reciter(ByteTokenizer(), dict(pairwise(codes)))

    return recite
