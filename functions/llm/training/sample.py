"""A few words from a model in training."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from functions.llm.array_types import Array, PRNGKey
from functions.llm.models import RecurrentLM
from functions.llm.tokenizers import Tokenizer

TEMPERATURE = 0.8


def sample_text(model: RecurrentLM, tokenizer: Tokenizer, first_token: int, length: int, seed: int) -> str:
    """Return ``length`` tokens of text that the model goes on with after ``first_token``."""
    tokens = _sample(model, first_token, jax.random.key(seed), length)
    return tokenizer.decode(np.asarray(tokens).tolist())


@partial(jax.jit, static_argnums=3)
def _sample(model: RecurrentLM, first_token: int, key: PRNGKey, length: int) -> Array:
    def step(carry: tuple[Array, object], position: Array) -> tuple[tuple[Array, object], Array]:
        token, state = carry
        logits, state = model.step(token, state)
        token = jax.random.categorical(jax.random.fold_in(key, position), logits / TEMPERATURE)
        return (token, state), token[0]

    start = jnp.asarray([first_token]), model.init_state(1)
    return jax.lax.scan(step, start, jnp.arange(length))[1]
