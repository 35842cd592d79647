"""Training batches, each a pure function of the seed and the step."""

from collections.abc import Sequence

import numpy as np

from functions.llm.tokenizers.tokenizer import TokenArray
from functions.llm.training.corpus import CorpusError

Batch = np.ndarray[tuple[int, int], np.dtype[np.int32]]


class Batches:
    """Rows of tokens from random positions, corpora mixed by weight.

    A batch depends on the seed and its step alone: a resumed training sees what an uninterrupted one would have seen.

    Args:
        tokens: each corpus's training part.
        weights: each corpus's share of the rows.
        batch: rows a batch.
        length: T, tokens a row; a row and its targets take T+1.
        seed: of the draws.
    """

    def __init__(
        self, tokens: Sequence[TokenArray], weights: Sequence[float], *, batch: int, length: int, seed: int
    ) -> None:
        for corpus in tokens:
            if len(corpus) <= length:
                raise CorpusError(
                    f"the training part of a corpus has {len(corpus)} tokens, a row needs {length + 1}: "
                    "give more text, or a smaller --length"
                )
        self._tokens = list(tokens)
        self._weights = np.asarray(weights, np.float64) / np.sum(weights)
        self._batch, self._length, self._seed = batch, length, seed

    def at(self, step: int) -> tuple[Batch, Batch]:
        """Return inputs and targets of ``step``, each (batch, length) int32; targets are the inputs one token on."""
        random = np.random.default_rng([self._seed, step])
        corpora = random.choice(len(self._tokens), size=self._batch, p=self._weights)
        rows = np.empty((self._batch, self._length + 1), np.int32)
        for row, corpus in zip(rows, corpora, strict=True):
            tokens = self._tokens[corpus]
            start = random.integers(0, len(tokens) - self._length)
            row[:] = tokens[start : start + self._length + 1]
        return rows[:, :-1], rows[:, 1:]
