"""What all tests share."""

import os
from pathlib import Path

import hypothesis
import pytest

# A deadline measures the machine's other work; print the example's seed so that a failure elsewhere can be repeated.
hypothesis.settings.register_profile("huginn", deadline=None, print_blob=True)
hypothesis.settings.load_profile("huginn")

SHARED_DIR = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of reference checkpoints and texts next to the repository; without it the test is skipped."""
    if not SHARED_DIR.is_dir():
        pytest.skip(f"needs the reference checkpoints and texts in {SHARED_DIR}")
    return SHARED_DIR


@pytest.fixture(scope="session", autouse=True)
def _state_home(tmp_path_factory) -> None:
    """What commands keep between two runs is not kept among the user's."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
