"""Free ports, and a checkpoint small enough to be loaded in every test."""

import socket
from pathlib import Path

import jax
import pytest

from functions.llm.checkpoints.checkpoint import save_checkpoint
from functions.llm.models import MinGRU, MinGRUConfig
from functions.llm.tokenizers import ByteTokenizer
from tests.local.huginn_up import unused_ports


@pytest.fixture
def free_ports() -> dict[str, int]:
    """A port that nobody listens on for every listener, by its name."""
    return unused_ports()


@pytest.fixture
def taken_port():
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """A minGRU over bytes with random weights, in a folder like a real one."""
    config = MinGRUConfig(vocab_size=256, width=16, hidden=16, layers=1, dropout=0.0)
    path = tmp_path_factory.mktemp("ckpts") / "tiny"
    save_checkpoint(path, MinGRU(config, MinGRU.init_params(config, jax.random.key(0))), ByteTokenizer(), "# tiny\n")
    return path
