"""Affine maps whose precision is that of their weights."""

import jax
import jax.numpy as jnp

from functions.llm.array_types import Array, Float


def dense(x: Float[Array, "*batch I"], weight: Float[Array, "O I"]) -> Float[Array, "*batch O"]:
    """Return ``x @ weight.T`` in float32.

    The weight decides the precision of the operands: with a bfloat16 weight, x is rounded to bfloat16 as well, and
    the sum is kept in float32. The output rows come first in a weight, as in torch's checkpoints.
    """
    # Without preferred_element_type XLA sums bfloat16 products in bfloat16, and misses the CPU's fast instructions.
    return jax.lax.dot_general(
        x.astype(weight.dtype), weight, (((x.ndim - 1,), (1,)), ((), ())), preferred_element_type=jnp.float32
    )
