"""Root-mean-square normalisation."""

import jax
import jax.numpy as jnp

from functions.llm.array_types import Array, Float

EPSILON = 1e-6


def rms_norm(x: Float[Array, "*batch C"], scale: Float[Array, " C"]) -> Float[Array, "*batch C"]:
    """Return x over its root mean square over the channels, times scale (Zhang & Sennrich 2019, arXiv:1910.07467)."""
    mean_square = jnp.mean(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(mean_square + EPSILON) * jnp.broadcast_to(scale, x.shape)
