"""A checkpoint that is ready to answer."""

from dataclasses import dataclass
from typing import Self

from functions.llm.checkpoints.checkpoint import Checkpoint
from functions.llm.inference.programs import Programs
from functions.llm.tokenizers import Tokenizer


@dataclass(frozen=True, eq=False)
class ServedModel:
    """What generating needs of a checkpoint.

    Args:
        checkpoint: the model as it was saved.
        programs: its compiled functions.
    """

    checkpoint: Checkpoint
    programs: Programs

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """Return ``checkpoint`` with the fastest programs that this machine has for it."""
        return cls(checkpoint, Programs(checkpoint.model))

    @property
    def name(self) -> str:
        """The model's name in the API."""
        return self.checkpoint.name

    @property
    def tokenizer(self) -> Tokenizer:
        """The text's way in and out."""
        return self.checkpoint.tokenizer

    @property
    def digest(self) -> str:
        """SHA-256 of the weights, hexadecimal."""
        return self.checkpoint.digest
