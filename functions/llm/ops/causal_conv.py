"""A short convolution over time that looks only back."""

import jax.numpy as jnp

from functions.llm.array_types import Array, Float


def causal_conv(
    x: Float[Array, "B T C"], past: Float[Array, "B P C"], taps: Float[Array, "K C"], bias: Float[Array, " C"]
) -> tuple[Float[Array, "B T C"], Float[Array, "B P C"]]:
    """Mix each channel with its own last K values.

    y_t = bias + sum_k taps[k] * x_{t - (K-1) + k}

    Args:
        x: inputs, in order.
        past: the P = K-1 inputs before x; zeros at the beginning of a text.
        taps: one filter per channel; the last tap weighs the present.
        bias: added to every output.

    Returns:
        The outputs, and the last K-1 inputs: the ``past`` of what follows.
    """
    taps_count, length = taps.shape[0], x.shape[1]
    taps = taps.astype(x.dtype)
    window = jnp.concatenate([past, x], axis=1)
    everywhere = (1, 1, x.shape[2])
    # K shifted products instead of lax.conv: XLA's CPU convolution has no fast path for one filter per channel.
    y = jnp.broadcast_to(bias, x.shape)
    for k in range(taps_count):
        y = y + window[:, k : k + length] * taps[k].reshape(everywhere)
    return y, window[:, length:]
