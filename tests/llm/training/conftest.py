"""A small text, and a training of seconds."""

from pathlib import Path

import pytest

from functions.llm.training.options import TrainingOptions
from functions.llm.training.recipe import Recipe

LINES = ["the raven sat on the old oak\n", "and said nothing at all today\n", "where has the day gone, asked she\n"]


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    file = tmp_path / "raven.txt"
    file.write_text("".join(LINES[n * n % 3] for n in range(120)))
    return file


@pytest.fixture
def recipe(text_file: Path) -> Recipe:
    """Twelve steps of a tiny minGRU with dropout, evaluated every four."""
    return Recipe(
        files=[str(text_file)],
        weights=None,
        tokenizer="char",
        vocab_size=300,
        model={"family": "mingru", "width": 8, "hidden": 8, "layers": 1, "dropout": 0.2},
        options=TrainingOptions(steps=12, batch=4, length=16, warmup=2, eval_every=4),
        command="huginn train raven.txt",
    )
