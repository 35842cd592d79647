"""Those who decode for a benchmark write texts that can be compared."""

import pytest

import benchmarks.step_contenders as contenders
from benchmarks.step_contenders import huginn_texts, weights
from benchmarks.step_speed import agreement
from functions.llm.models import LSTMConfig


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A model that compiles in a moment, and turns that are over at once."""
    monkeypatch.setattr(contenders, "SHAPE", LSTMConfig(vocab_size=17, emb=8, hid=16, layers=1))
    monkeypatch.setattr(contenders, "TURN_S", 0.0)


def turn(texts):
    next(texts)
    return next(texts)


def test_everybody_has_the_same_weights():
    """Drawn anew in each process, and of the shape that is on the label."""
    first, second = weights(), weights()
    assert {name: array.shape for name, array in first.items()} == contenders.SHAPE.param_shapes()
    assert all((first[name] == second[name]).all() for name in first)


def test_a_text_is_the_same_in_every_batch_that_begins_with_it():
    """A turn has one rate and one checksum for each batch; what is alone in one batch is the first row of another."""
    found = turn(huginn_texts((1, 2, 16), "float32", native=False))
    assert set(found) == {1, 2, 16}
    assert all(each.rate > 0 for each in found.values())
    assert len({each.text for each in found.values()}) == 3
    assert turn(huginn_texts((1,), "float32", native=False))[1].text == found[1].text


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_matrices_are_held_as_the_label_says(precision):
    """Nobody measures float32 under another name."""
    held = {name: contenders._held(name, array, precision) for name, array in weights().items()}
    matrices = {name for name, array in held.items() if str(array.dtype) == precision}
    assert matrices == {"rnn.weight_ih_l0", "rnn.weight_hh_l0", "head.weight"}


def test_float32_texts_that_differ_are_shouted_about():
    """A peer that computes something else must not be compared in silence; rounding may change what is rounded."""
    same = {
        "a, float32": contenders.Turn(1.0, 7),
        "b, float32": contenders.Turn(2.0, 7),
        "c, int8": contenders.Turn(3.0, 8),
    }
    assert "the same" in agreement(same)
    assert "DIFFER" in agreement(same | {"d, float32": contenders.Turn(1.0, 9)})
