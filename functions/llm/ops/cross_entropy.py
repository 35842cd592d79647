"""The loss of a language model."""

import jax
import jax.numpy as jnp

from functions.llm.array_types import Array, Float, Logits, Tokens


def cross_entropy(logits: Logits, targets: Tokens) -> Float[Array, "B T"]:
    """Return each target's negative log-likelihood, in nats."""
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen
