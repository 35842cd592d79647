"""The API does what its OpenAPI document says, whatever is asked: schemathesis writes the requests, and judges."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import jax
import pytest

from functions.llm.checkpoints.checkpoint import save_checkpoint
from functions.llm.models import MinGRU, MinGRUConfig
from functions.llm.tokenizers import ByteTokenizer
from tests.clients.conftest import HERE, expect_ready
from tests.clients.environments import BUILD
from tests.local.huginn_up import REPOSITORY, Up, unused_ports

# Requests for each operation, and which: `make test-clients` asks more, and others each time.
EXAMPLES = os.environ.get("HUGINN_EXAMPLES", "8")
SEED = os.environ.get("HUGINN_SEED", "1")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory) -> Iterator[tuple[str, str]]:
    """The API of a `huginn up` that asks for keys, over a model that takes no time; and a key that may do all."""
    folder = tmp_path_factory.mktemp("guarded")
    config = MinGRUConfig(vocab_size=256, width=16, hidden=16, layers=1, dropout=0.0)
    tiny = MinGRU(config, MinGRU.init_params(config, jax.random.key(0)))
    save_checkpoint(folder / "tiny", tiny, ByteTokenizer(), "# tiny\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUGINN_AUTH", "on")
        patch.setenv("KEY_STORE", f"sqlite:{folder / 'keys.sqlite'}")
        patch.setenv("XDG_STATE_HOME", str(folder))
        made = subprocess.run(
            [sys.executable, "-m", "local.cli", "keys", "new", "everything", "--scopes", "generate,admin"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        )
        up = Up(folder / "tiny", unused_ports())
    try:
        up.wait_until_ready()
        yield f"http://127.0.0.1:{up.ports['api']}", made.stdout.strip()
    finally:
        up.close()


def test_the_document_is_true(guarded, client):
    """No 5xx; every answer has a documented status, type and schema; what obeys the schema is taken, else refused.

    What says that it needs a key is not to be had without, and a method that is not documented is a 405.
    """
    expect_ready("openai3")
    url, key = guarded
    said = client(
        [
            *(BUILD / "openai3" / "bin" / "schemathesis", "--no-color", "run", f"{url}/openapi.json"),
            *("--header", f"Authorization: Bearer {key}", "--request-timeout", "120", "--continue-on-failure"),
            *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES, "--seed", SEED),
        ],
        SCHEMATHESIS_HOOKS="schemathesis_checks",
        PYTHONPATH=f"{HERE / 'offline'}:{HERE / 'programs'}",
    )
    operations = re.search(r"Selected: (\d+)/(\d+)\s+Tested: (\d+)", said)
    assert operations is not None, said
    assert len(set(operations.groups())) == 1, said
    assert "WARNINGS" not in said, said
