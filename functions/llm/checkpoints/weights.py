"""A model's parameters as the tensors of a file: an int8 matrix is two of them, its values and its scales."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from functions.llm.array_types import Params
from functions.llm.checkpoints.tensor_file import Tensor
from functions.llm.models import ConfigError
from functions.llm.ops.quantized import QuantizedWeight

SCALE = ".scale"
"""What the name of an int8 matrix's scales adds to its own."""


def tensors_of(params: Params) -> dict[str, Tensor]:
    """Return what a file holds of ``params``."""
    tensors: dict[str, Tensor] = {}
    for name, param in params.items():
        if isinstance(param, QuantizedWeight):
            tensors[name], tensors[name + SCALE] = np.asarray(param.values), np.asarray(param.scale)
        else:
            tensors[name] = np.asarray(param)
    return tensors


def params_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the parameters that a file's ``tensors`` are: on a CPU views of them, wherever they are aligned.

    Raises:
        ConfigError: an int8 matrix has no scales, or none that can be its own.
    """
    quantized = {name for name, tensor in tensors.items() if tensor.dtype == np.int8}
    scales = {name + SCALE for name in quantized}
    for name in sorted(quantized):
        _check_scale(name, tensors)
    params: dict[str, Any] = {name: _array(tensor) for name, tensor in tensors.items() if name not in scales}
    for name in quantized - scales:
        params[name] = QuantizedWeight(params[name], _array(tensors[name + SCALE]))
    return params


def _check_scale(name: str, tensors: Mapping[str, Tensor]) -> None:
    values, scale = tensors[name], tensors.get(name + SCALE)
    if scale is None:
        raise ConfigError(f"{name} is int8, and {name + SCALE} is missing")
    if values.ndim != 2:
        raise ConfigError(f"{name} is int8 of shape {values.shape}, expected a matrix")
    if scale.dtype != np.float32 or scale.shape != values.shape[:1]:
        raise ConfigError(
            f"{name + SCALE} is {scale.dtype} of shape {scale.shape}, expected float32 of shape {values.shape[:1]}"
        )
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise ConfigError(f"{name + SCALE} has a scale that is not above 0, or not finite")


def _array(tensor: Tensor) -> jax.Array:
    # device_put keeps an aligned array where it is, and copies any other; jnp.asarray would always copy.
    array: jax.Array = jax.device_put(tensor if tensor.flags.aligned else tensor.copy(), may_alias=True)
    return array
