"""Dropout."""

import jax
import jax.numpy as jnp

from functions.llm.array_types import Array, Float, PRNGKey


def dropout(x: Float[Array, "*shape"], rate: float, key: PRNGKey | None) -> Float[Array, "*shape"]:
    """Return x with each value zeroed with probability ``rate`` and the rest scaled up; x itself without a key.

    The probability is rounded to 1/65536: 16 random bits a value cost half of 32.
    """
    if key is None or rate == 0:
        return x
    threshold = round(rate * 65536)
    keep = jax.random.bits(key, x.shape, jnp.uint16) >= jnp.uint16(threshold)
    return jnp.where(keep, x / (1 - threshold / 65536), 0)
