"""Names for arrays, by shape.

The letters are the field's: B batch, T time, C channels of the residual stream, D channels of the recurrence,
K taps of a convolution, L layers, V vocabulary, E embedding width, H hidden units.
The shapes are checked by the test run only; in production an annotation costs nothing.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int, Int8, Key
from numpy.typing import DTypeLike

__all__ = [
    "Array",
    "Float",
    "Int",
    "Int8",
    "Logits",
    "PRNGKey",
    "Params",
    "StepLogits",
    "StepTokens",
    "Tokens",
    "on_host",
]

Params = Mapping[str, Any]
"""A model's parameters: the name in the checkpoint's file -> the array, or a matrix's `QuantizedWeight`."""

PRNGKey = Key[Array, ""]

StepTokens = Int[Array, " B"]
StepLogits = Float[Array, "B V"]
Tokens = Int[Array, "B T"]
Logits = Float[Array, "B T V"]


def on_host(values: Any, dtype: DTypeLike) -> Any:
    """Return a numpy array that stands for a JAX array: it goes to the device with the call that it is passed to."""
    return np.asarray(values, dtype)
