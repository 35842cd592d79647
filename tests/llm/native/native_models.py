"""Small models in all the precisions that the kernel has."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from functions.llm.array_types import Array
from functions.llm.models import FAMILIES, ModelConfig, RecurrentLM
from functions.llm.ops.quantized import quantize

PRECISIONS: dict[str, Callable[[Array], object]] = {
    "float32": lambda weight: weight,
    "bfloat16": lambda weight: weight.astype(jnp.bfloat16),
    "int8": quantize,
}


def random_model(config: ModelConfig, precision: str, seed: int = 0) -> RecurrentLM:
    """A model whose matrices are in that precision."""
    family = FAMILIES[config.family]
    params = family.init_params(config, jax.random.key(seed))
    convert = PRECISIONS[precision]
    matrices = config.dense_weights()
    return family(config, {name: convert(value) if name in matrices else value for name, value in params.items()})
