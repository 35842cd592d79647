"""Matrices in int8: what is lost, and what is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.llm.ops.dense import affine, dense
from functions.llm.ops.lstm_layer import lstm_layer
from functions.llm.ops.quantized import QuantizedWeight, dequantize, quantize


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(st.lists(finite, min_size=3, max_size=3), min_size=1, max_size=4))
def test_every_weight_is_off_by_at_most_half_a_step_of_its_row(rows: list[list[float]]) -> None:
    w = np.asarray(rows, np.float32)
    quantized = quantize(jnp.asarray(w))
    values, scale = np.asarray(quantized.values, np.float64), np.asarray(quantized.scale, np.float64)
    assert np.abs(values).max() <= 127
    assert (scale > 0).all()
    # A scale is rounded to float32: 127 times its last digit; a row below float32's normal numbers becomes zero.
    smallest = 127 * np.finfo(np.float32).tiny
    assert (
        np.abs(values * scale[:, None] - w) <= scale[:, None] * (0.5 + 127 * 2**-24) + smallest * (scale == 1)[:, None]
    ).all()


def test_what_int8_can_say_is_kept_exactly() -> None:
    values = np.asarray([[127, -127, 0, 1], [-127, 64, 2, -1]], np.int8)
    scale = np.asarray([0.25, 2.0], np.float32)
    exact = QuantizedWeight(jnp.asarray(values), jnp.asarray(scale))
    again = quantize(dequantize(exact))
    np.testing.assert_array_equal(again.values, values)
    np.testing.assert_array_equal(again.scale, scale)


def test_a_tie_goes_to_the_even_neighbour() -> None:
    np.testing.assert_array_equal(quantize(jnp.asarray([[127.0, 0.5, 1.5, -2.5]])).values, [[127, 0, 2, -2]])


def test_a_row_of_zeros_stays_zero() -> None:
    quantized = quantize(jnp.asarray([[0.0, -0.0], [1.0, 2.0], [1e-42, 0.0]]))
    np.testing.assert_array_equal(quantized.scale[jnp.asarray([0, 2])], [1, 1])
    np.testing.assert_array_equal(dequantize(quantized)[0], [0, 0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        quantize(jnp.asarray([[1.0, bad]]))


def test_a_product_with_int8_is_that_with_the_matrix_it_stands_for() -> None:
    x, weight, bias = normal(0, 2, 3, 8), quantize(normal(1, 5, 8)), normal(2, 5)
    expected = np.asarray(x, np.float64) @ np.asarray(dequantize(weight), np.float64).T
    # Sums of eight products in float32.
    np.testing.assert_allclose(dense(x, weight), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(affine(x, weight, bias), expected + np.asarray(bias), rtol=1e-5, atol=1e-5)
    assert dense(x.astype(jnp.bfloat16), weight).dtype == jnp.float32


def test_an_lstm_layer_in_int8_is_that_of_the_matrix_it_stands_for() -> None:
    gates, w_hh, h0, c0 = normal(0, 2, 5, 12), quantize(normal(1, 12, 3)), normal(2, 2, 3), normal(3, 2, 3)
    for mine, plain in zip(lstm_layer(gates, w_hh, h0, c0), lstm_layer(gates, dequantize(w_hh), h0, c0), strict=True):
        np.testing.assert_allclose(mine, plain, rtol=1e-5, atol=1e-6)


def test_a_quantized_weight_goes_through_jit_and_keeps_its_shape_alone() -> None:
    weight = quantize(normal(0, 5, 8))
    through = jax.jit(lambda w: w)(weight)
    np.testing.assert_array_equal(through.values, weight.values)
    assert (weight.shape, weight.ndim, weight.dtype, weight.size, weight.nbytes) == ((5, 8), 2, jnp.int8, 40, 60)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), weight)
    assert shapes.scale.shape == (5,)
    assert len(jax.tree.leaves(weight)) == 2
