"""All that a training was told, in a file beside its state, so that it can be resumed by its folder alone."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from functions.llm.checkpoints.checkpoint import CheckpointError, replace_files
from functions.llm.training.options import TrainingOptions

RECIPE_FILE = "recipe.json"


@dataclass(frozen=True)
class Recipe:
    """A training, as it was asked for.

    Args:
        files: the corpora's paths.
        weights: the corpora's shares, or None for their lengths.
        tokenizer: byte, char or bpe.
        vocab_size: tokens of a bpe.
        model: the family and the sizes that were asked for; the vocabulary follows from the tokenizer.
        options: of the optimisation.
        command: the command line that asked, files by name.
    """

    files: list[str]
    weights: list[float] | None
    tokenizer: str
    vocab_size: int
    model: Mapping[str, Any]
    options: TrainingOptions
    command: str

    def write(self, folder: Path) -> None:
        """Write the recipe to ``folder``."""
        replace_files(folder, {RECIPE_FILE: (json.dumps(asdict(self), indent=2) + "\n").encode()})

    @classmethod
    def read(cls, folder: Path) -> "Recipe":
        """Return the recipe in ``folder``."""
        file = folder / RECIPE_FILE
        try:
            values = json.loads(file.read_text())
            return cls(**values | {"options": TrainingOptions(**values["options"])})
        except OSError as error:
            raise CheckpointError(f"{file}: {error.strerror}; there is no training to resume") from error
        except (ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"{file}: not a recipe ({error})") from error
