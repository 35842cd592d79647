"""Names for arrays, by shape.

The letters are the field's: B batch, T time, C channels of the residual stream, D channels of the recurrence,
K taps of a convolution, L layers, V vocabulary, E embedding width, H hidden units.
The shapes are checked by the test run only; in production an annotation costs nothing.
"""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Array, Float, Int, Int8, Key

__all__ = ["Array", "Float", "Int", "Int8", "Logits", "PRNGKey", "Params", "StepLogits", "StepTokens", "Tokens"]

Params = Mapping[str, Any]
"""A model's parameters: the name in the checkpoint's file -> the array, or a matrix's `QuantizedWeight`."""

PRNGKey = Key[Array, ""]

StepTokens = Int[Array, " B"]
StepLogits = Float[Array, "B V"]
Tokens = Int[Array, "B T"]
Logits = Float[Array, "B T V"]
