"""Linear and affine maps whose precision is that of their weights."""

import jax
import jax.numpy as jnp

from functions.llm.array_types import Array, Float
from functions.llm.ops.quantized import QuantizedWeight, Weight


def dense(x: Float[Array, "*batch I"], weight: Weight) -> Float[Array, "*batch O"]:
    """Return ``x @ weight.T`` in float32.

    The weight decides the precision of the operands, forwards and backwards: with a bfloat16 weight, x is rounded to
    bfloat16 as well, and the sum is kept in float32. With an int8 weight x stays as it is, and nothing is
    differentiated. Output rows come first in a weight, as in torch's checkpoints.
    """
    if isinstance(weight, QuantizedWeight):
        y = _product(x.astype(jnp.float32), weight.values.astype(jnp.float32), over=(x.ndim - 1, 1))
        return y * jnp.broadcast_to(weight.scale, y.shape)
    return _dense(x, weight)


@jax.custom_vjp
def _dense(x: Float[Array, "*batch I"], weight: Float[Array, "O I"]) -> Float[Array, "*batch O"]:
    return _product(x.astype(weight.dtype), weight, over=(x.ndim - 1, 1))


def affine(x: Float[Array, "*batch I"], weight: Weight, bias: Float[Array, " O"]) -> Float[Array, "*batch O"]:
    """Return ``x @ weight.T + bias`` in float32; see `dense`."""
    y = dense(x, weight)
    return y + jnp.broadcast_to(bias.astype(y.dtype), y.shape)


def _product(left: Array, right: Array, over: tuple[int, int]) -> Array:
    # Without preferred_element_type XLA sums bfloat16 products in bfloat16, and misses the CPU's fast instructions.
    return jax.lax.dot_general(left, right, (((over[0],), (over[1],)), ((), ())), preferred_element_type=jnp.float32)


def _forward(x: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    x = x.astype(weight.dtype)
    return _product(x, weight, over=(x.ndim - 1, 1)), (x, weight)


def _backward(saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    # Autodiff would multiply the float32 dy with the weight, and so leave the backward pass, two thirds of the work,
    # at float32's speed.
    x, weight = saved
    dy = dy.astype(weight.dtype)
    dx = _product(dy, weight, over=(dy.ndim - 1, 0))
    dweight = _product(dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1]), over=(0, 0))
    return dx, dweight.astype(weight.dtype)


_dense.defvjp(_forward, _backward)
