"""A model with its matrices in fewer bytes."""

from typing import Literal

import jax.numpy as jnp

from functions.llm.models import RecurrentLM, build_model
from functions.llm.ops.quantized import quantize


class NotQuantizableError(ValueError):
    """A model cannot be quantized; the message names the matrix, and what it is."""


def quantize_model(model: RecurrentLM, dtype: Literal["int8", "bfloat16"]) -> RecurrentLM:
    """Return ``model`` with every matrix that `dense` reads in ``dtype``, and all else as it was."""
    params = dict(model.params)
    for name in sorted(model.config.dense_weights()):
        if params[name].dtype != jnp.float32:
            raise NotQuantizableError(f"{name} is {params[name].dtype}, expected float32")
        if not bool(jnp.isfinite(params[name]).all()):
            raise NotQuantizableError(f"{name} has numbers that are not finite")
        params[name] = quantize(params[name]) if dtype == "int8" else params[name].astype(jnp.bfloat16)
    return build_model(model.config, params)
