"""Small checkpoints with random weights, on disk like real ones."""

from pathlib import Path

import jax
import pytest

from functions.llm.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from functions.llm.models import LSTM, LSTMConfig, MinGRU, MinGRUConfig
from functions.llm.tokenizers import ByteTokenizer, CharTokenizer

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


@pytest.fixture(scope="session")
def char_checkpoint(checkpoints_folder: Path) -> Checkpoint:
    return load_checkpoint(checkpoints_folder / "tiny-char")


@pytest.fixture(scope="session")
def byte_checkpoint(checkpoints_folder: Path) -> Checkpoint:
    return load_checkpoint(checkpoints_folder / "tiny-byte")
