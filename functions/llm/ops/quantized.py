"""Matrices in int8, with one scale for each output."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from functions.llm.array_types import Array, Float, Int8

LARGEST = 127
"""Of the 256 values of an int8, -128 is not used: what is symmetric needs no zero point."""

BLOCK = 1 << 22
"""Weights that are quantized at a time."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class QuantizedWeight:
    """A matrix w in a quarter of float32's bytes: w[o, i] = values[o, i] * scale[o].

    Args:
        values: whole numbers from -127 to 127.
        scale: what 1 stands for in each row; positive.
    """

    # "or Any": JAX builds its trees over shapes and placeholders too.
    values: Int8[Array, "O I"] | Any
    scale: Float[Array, " O"] | Any

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def ndim(self) -> int:
        return self.values.ndim

    @property
    def dtype(self) -> Any:
        return self.values.dtype

    @property
    def size(self) -> int:
        """How many weights there are; the scales are not counted."""
        return self.values.size

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.scale.nbytes


Weight = Float[Array, "O I"] | QuantizedWeight
"""A matrix as `dense` takes it: output rows first."""


def quantize(weight: Float[Array, "O I"]) -> QuantizedWeight:
    """Return ``weight`` in int8, each row by its own largest magnitude, rounded to the nearest (ties to even)."""
    w = np.asarray(weight)
    values, scale = np.empty(w.shape, np.int8), np.empty(w.shape[:1], np.float32)
    # In float64, and so not the whole of a large matrix at a time.
    rows = max(1, BLOCK // max(1, w.shape[1]))
    for first in range(0, len(w), rows):
        block = slice(first, first + rows)
        values[block], scale[block] = _quantize(w[block].astype(np.float64))
    return QuantizedWeight(jnp.asarray(values), jnp.asarray(scale))


def _quantize(w: NDArray[np.float64]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    if not np.isfinite(w).all():
        raise ValueError("a weight is not finite; it cannot be quantized")
    scale = (np.abs(w).max(axis=1, initial=0) / LARGEST).astype(np.float32)
    # A row of zeros; or of numbers so small that their scale would lose its digits (subnormal), and they mean nothing.
    scale[scale < np.finfo(np.float32).tiny] = 1
    return np.clip(np.rint(w / scale[:, None]), -LARGEST, LARGEST).astype(np.int8), scale


def dequantize(weight: QuantizedWeight) -> Float[Array, "O I"]:
    """Return the float32 matrix that ``weight`` stands for."""
    return weight.values.astype(jnp.float32) * weight.scale[:, None].astype(jnp.float32)
