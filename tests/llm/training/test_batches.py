"""Batches: what a step sees."""

import numpy as np
import pytest

from functions.llm.training.batches import Batches
from functions.llm.training.corpus import CorpusError

CORPORA = [np.arange(0, 500, dtype=np.uint16), np.arange(1000, 1050, dtype=np.uint16)]


def make(seed: int = 0) -> Batches:
    return Batches(CORPORA, [0.8, 0.2], batch=64, length=8, seed=seed)


def test_targets_are_the_inputs_one_token_on_and_rows_stay_in_their_corpus() -> None:
    inputs, targets = make().at(3)
    np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])
    np.testing.assert_array_equal(targets - inputs, 1)
    assert inputs.shape == (64, 8)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    batches = make()
    batches.at(0)
    np.testing.assert_array_equal(batches.at(7)[0], make().at(7)[0])
    assert not np.array_equal(make().at(7)[0], make().at(8)[0])
    assert not np.array_equal(make().at(7)[0], make(seed=1).at(7)[0])


def test_rows_come_by_weight() -> None:
    """Of 6,400 rows a fifth from the second corpus: 1,280, with a standard deviation of 32."""
    rows = np.concatenate([make().at(step)[0][:, 0] for step in range(100)])
    assert abs((rows >= 1000).sum() - 1280) < 160


def test_every_place_can_be_drawn() -> None:
    starts = np.concatenate([make().at(step)[0][:, 0] for step in range(100)])
    assert {int(s) for s in starts if s >= 1000} == set(range(1000, 1042))


def test_a_corpus_that_is_too_short_says_what_to_do() -> None:
    with pytest.raises(CorpusError, match=r"50 tokens, a row needs 51.*smaller --length"):
        Batches(CORPORA, [1, 1], batch=1, length=50, seed=0)
