"""A checkpoint that is ready to answer."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from functions.llm.checkpoints.checkpoint import Checkpoint
from functions.llm.inference.chat_template import ChatTemplate
from functions.llm.inference.executables import find_executables
from functions.llm.inference.programs import Programs, program_functions
from functions.llm.native.accelerated import accelerated
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
    def of(cls, checkpoint: Checkpoint, executables: Path | None = None) -> Self:
        """Return ``checkpoint`` with the fastest programs that this machine has for it.

        Args:
            checkpoint: the model.
            executables: where programs that were compiled ahead are kept, if anywhere.
        """
        model = accelerated(checkpoint.model) or checkpoint.model
        return cls(checkpoint, Programs(model, find_executables(model, program_functions(model), executables)))

    @property
    def name(self) -> str:
        """The model's name in the API."""
        return self.checkpoint.name

    @property
    def tokenizer(self) -> Tokenizer:
        """The text's way in and out."""
        return self.checkpoint.tokenizer

    @cached_property
    def chat_template(self) -> ChatTemplate:
        """How conversations are written for this model; read from its folder when it is first asked for."""
        return ChatTemplate.of(self.checkpoint.path, self.checkpoint.tokenizer)

    @property
    def digest(self) -> str:
        """SHA-256 of the weights, hexadecimal."""
        return self.checkpoint.digest
