"""The operations against what they replace: loops, autodiff, numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functions.llm.ops.causal_conv import causal_conv
from functions.llm.ops.dense import affine, dense
from functions.llm.ops.dropout import dropout
from functions.llm.ops.linear_recurrence import linear_recurrence, parallel_scan, sequential_scan
from functions.llm.ops.lstm_layer import lstm_layer


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("length", [1, 2, 7, 64])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_parallel_scan_equals_the_sequential_one(length: int, *, reverse: bool) -> None:
    a, b = jax.nn.sigmoid(normal(0, 2, length, 3)), normal(1, 2, length, 3)
    np.testing.assert_allclose(
        parallel_scan(a, b, reverse=reverse), sequential_scan(a, b, reverse=reverse), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("length", [1, 5])
def test_the_recurrences_gradient_is_that_of_the_loop(length: int) -> None:
    a, b, h0 = jax.nn.sigmoid(normal(0, 2, length, 3)), normal(1, 2, length, 3), normal(2, 2, 3)
    weights = normal(3, 2, length, 3)

    def loop(a: jax.Array, b: jax.Array, h0: jax.Array) -> jax.Array:
        h, out = h0, []
        for t in range(length):
            h = a[:, t] * h + b[:, t]
            out.append(h)
        return jnp.stack(out, axis=1)

    np.testing.assert_allclose(linear_recurrence(a, b, h0), loop(a, b, h0), rtol=1e-5, atol=1e-6)
    ours, plain = (
        jax.grad(lambda *args, f=f: (weights * f(*args)).sum(), argnums=(0, 1, 2))(a, b, h0)
        for f in (linear_recurrence, loop)
    )
    for mine, theirs in zip(ours, plain, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_the_lstms_gradient_is_that_of_autodiff() -> None:
    gates, w_hh, h0, c0 = normal(0, 2, 5, 12), normal(1, 12, 3), normal(2, 2, 3), normal(3, 2, 3)
    weights = normal(4, 2, 5, 3)

    def plain(gates: jax.Array, w_hh: jax.Array, h0: jax.Array, c0: jax.Array) -> tuple[jax.Array, ...]:
        h, c, out = h0, c0, []
        for t in range(5):
            i, f, g, o = jnp.split(gates[:, t] + h @ w_hh.T, 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            out.append(h)
        return jnp.stack(out, axis=1), h, c

    def loss(f: object, *args: jax.Array) -> jax.Array:
        out, h, c = f(*args)  # type: ignore[operator]
        return (weights * out).sum() + (h * h).sum() + 2 * c.sum()

    for mine, theirs in zip(
        jax.grad(loss, argnums=(1, 2, 3, 4))(lstm_layer, gates, w_hh, h0, c0),
        jax.grad(loss, argnums=(1, 2, 3, 4))(plain, gates, w_hh, h0, c0),
        strict=True,
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_dense_is_a_matrix_product_with_its_gradient() -> None:
    x, weight, bias, dy = normal(0, 2, 3, 4), normal(1, 5, 4), normal(2, 5), normal(3, 2, 3, 5)
    np.testing.assert_allclose(
        affine(x, weight, bias), np.asarray(x) @ np.asarray(weight).T + np.asarray(bias), rtol=1e-5
    )
    dx, dweight = jax.grad(lambda x, w: (dense(x, w) * dy).sum(), argnums=(0, 1))(x, weight)
    np.testing.assert_allclose(dx, np.einsum("bto,oi->bti", dy, weight), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dweight, np.einsum("bto,bti->oi", dy, x), rtol=1e-5, atol=1e-6)


def test_dense_keeps_the_precision_of_its_weight_both_ways() -> None:
    """A bfloat16 weight means bfloat16 operands in the backward products too: that is where the time is."""
    x, weight = normal(0, 3, 4), normal(1, 5, 4).astype(jnp.bfloat16)
    traced = str(jax.make_jaxpr(jax.grad(lambda x, w: dense(x, w).sum(), argnums=(0, 1)))(x, weight))
    products = [line for line in traced.splitlines() if "dot_general" in line and "=" in line]
    assert products
    dx, dweight = jax.grad(lambda x, w: dense(x, w).sum(), argnums=(0, 1))(x, weight)
    assert (dx.dtype, dweight.dtype) == (jnp.float32, jnp.bfloat16)
    compiled = jax.jit(jax.grad(lambda x, w: dense(x, w).sum(), argnums=(0, 1))).lower(x, weight).as_text()
    operands = [line for line in compiled.splitlines() if "stablehlo.dot_general" in line]
    assert operands
    assert all("xbf16>, tensor<" in line and line.count("xbf16>") >= 2 for line in operands), operands


def test_the_convolution_looks_back_only_and_hands_its_past_on() -> None:
    x, taps, bias, past = normal(0, 2, 9, 3), normal(1, 4, 3), normal(2, 3), normal(3, 2, 3, 3)
    whole, end = causal_conv(x, past, taps, bias)
    window = np.concatenate([past, x], axis=1)
    expected = np.stack([(window[:, t : t + 4] * np.asarray(taps)).sum(1) for t in range(9)], axis=1) + np.asarray(bias)
    np.testing.assert_allclose(whole, expected, rtol=1e-5, atol=1e-6)
    first, middle = causal_conv(x[:, :2], past, taps, bias)
    second, resumed_end = causal_conv(x[:, 2:], middle, taps, bias)
    np.testing.assert_allclose(jnp.concatenate([first, second], axis=1), whole, rtol=1e-6)
    np.testing.assert_array_equal(resumed_end, end)


def test_dropout_zeroes_its_share_and_keeps_the_mean() -> None:
    x = jnp.ones((400, 500))
    dropped = np.asarray(dropout(x, 0.25, jax.random.key(0)))
    # 200,000 draws: the share's standard deviation is 0.001.
    assert abs((dropped == 0).mean() - 0.25) < 0.005
    np.testing.assert_allclose(dropped[dropped > 0], 1 / 0.75, rtol=1e-4)
    np.testing.assert_array_equal(dropout(x, 0.25, None), x)
