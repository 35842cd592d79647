"""The llm function with a model whose tokens cost nothing: what is left is HTTP, the event stream and the engine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from functions.llm.app import build_app
from functions.llm.array_types import on_host
from functions.llm.checkpoints.checkpoint import Checkpoint
from functions.llm.inference.programs import (
    MAX_ALTERNATIVES,
    MAX_CHUNK,
    DecodeState,
    Forced,
    Programs,
    TokenBatch,
    batch_sizes,
    program_specs,
)
from functions.llm.inference.sampling import Sampler
from functions.llm.inference.served_model import ServedModel
from functions.llm.models import RecurrentLM, State
from functions.llm.settings import Settings


class CostlessPrograms(Programs):
    """Draws the same tokens in every chunk, at once."""

    def __init__(self, model: RecurrentLM) -> None:
        super().__init__(model)
        rng = np.random.default_rng(0)
        vocabulary = model.config.vocab_size
        top = min(MAX_ALTERNATIVES, vocabulary)
        self._drawn = {
            size: TokenBatch(
                ids=on_host(rng.integers(0, vocabulary, (size, MAX_CHUNK)), np.int32),
                logprobs=on_host(np.full((size, MAX_CHUNK), -1.0), np.float32),
                top_ids=on_host(np.zeros((size, MAX_CHUNK, top)), np.int32),
                top_logprobs=on_host(np.zeros((size, MAX_CHUNK, top)), np.float32),
            )
            for size in batch_sizes(model)
        }
        # There is nothing to compile.
        self._prepared = set(program_specs(model))

    def prepare(self) -> Iterator[str]:
        """Compile nothing: it would go on beside the first requests."""
        yield from program_specs(self.model)

    def read(self, tokens: NDArray[np.int32], state: State) -> State:  # noqa: ARG002 - as the programs' own
        """Return the state as it is."""
        return state

    def decode(
        self,
        texts: DecodeState,
        samplers: Sampler,  # noqa: ARG002
        forced: Forced,  # noqa: ARG002
        counts: NDArray[np.int32],
        wants_top: bool,  # noqa: ARG002
    ) -> tuple[TokenBatch, DecodeState]:
        """Return the tokens that are always drawn."""
        return self._drawn[len(counts)], texts


class CostlessModel(ServedModel):
    """A checkpoint, of which only the tokenizer matters."""

    @classmethod
    def of(cls, checkpoint: Checkpoint, executables: Path | None = None) -> Self:  # noqa: ARG003 - the base's
        """Return ``checkpoint`` with programs that do nothing."""
        return cls(checkpoint, CostlessPrograms(checkpoint.model))


def costless_app() -> Any:
    """Return the llm function's app, all else being as it is served."""
    # Its wiring has no place for a model of another kind, and should have none.
    ServedModel.of = CostlessModel.of  # type: ignore[method-assign]
    return build_app(Settings.from_env())
