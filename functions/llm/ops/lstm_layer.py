"""One layer of long short-term memory over a whole sequence."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from functions.llm.array_types import Array, Float
from functions.llm.ops.dense import dense
from functions.llm.ops.quantized import QuantizedWeight, Weight

Gates = Float[Array, "B T G"]
Hidden = Float[Array, "B H"]
Outputs = Float[Array, "B T H"]


class _Saved(NamedTuple):
    """What the backward pass needs, time first: the gates after their nonlinearities, cells and hiddens."""

    i: Array
    f: Array
    g: Array
    o: Array
    c: Array
    h: Array


def lstm_layer(gates: Gates, w_hh: Weight, h0: Hidden, c0: Hidden) -> tuple[Outputs, Hidden, Hidden]:
    """Return the hidden vectors of every step, and the last hidden and cell.

    i, f, o = sigmoid(.), g = tanh(.) of  gates_t + W_hh h_{t-1},   c_t = f c_{t-1} + i g,   h_t = o tanh(c_t)
    (Hochreiter & Schmidhuber 1997; Gers et al. 2000), gates in torch's order i, f, g, o.

    Args:
        gates: the input's share of the gates, W_ih x_t + b_ih + b_hh, for all steps; G = 4H.
        w_hh: the recurrent weights, (4H, H).
        h0: hidden vector before the first step.
        c0: cell before the first step.
    """
    return _layer(gates, w_hh, h0, c0) if isinstance(w_hh, QuantizedWeight) else _trained_layer(gates, w_hh, h0, c0)


def _layer(gates: Gates, w_hh: Weight, h0: Hidden, c0: Hidden) -> tuple[Outputs, Hidden, Hidden]:
    (h, c), saved = _run(gates, w_hh, h0, c0)
    return jnp.swapaxes(saved.h, 0, 1), h, c


def _run(gates: Gates, w_hh: Weight, h0: Hidden, c0: Hidden) -> tuple[tuple[Hidden, Hidden], _Saved]:
    def step(carry: tuple[Hidden, Hidden], gates_t: Array) -> tuple[tuple[Hidden, Hidden], _Saved]:
        h, c = carry
        i, f, g, o = jnp.split(gates_t + dense(h, w_hh), 4, axis=-1)
        i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
        c = f * c + i * g
        h = o * jnp.tanh(c)
        return (h, c), _Saved(i, f, g, o, c, h)

    return jax.lax.scan(step, (h0, c0), jnp.swapaxes(gates, 0, 1))


def _forward(
    gates: Gates, w_hh: Array, h0: Hidden, c0: Hidden
) -> tuple[tuple[Outputs, Hidden, Hidden], tuple[_Saved, Array, Hidden, Hidden]]:
    (h, c), saved = _run(gates, w_hh, h0, c0)
    return (jnp.swapaxes(saved.h, 0, 1), h, c), (saved, w_hh, h0, c0)


def _backward(
    residuals: tuple[_Saved, Array, Hidden, Hidden], cotangents: tuple[Outputs, Hidden, Hidden]
) -> tuple[Gates, Array, Hidden, Hidden]:
    """Walk back through time for the gates only.

    The weights' gradient is one matrix product over all steps afterwards: summed inside the loop, as autodiff would,
    every step reads and writes the whole gradient.
    """
    saved, w_hh, h0, c0 = residuals
    d_outputs, dh_last, dc_last = cotangents
    c_before = jnp.concatenate([c0[None], saved.c[:-1]])
    h_before = jnp.concatenate([h0[None], saved.h[:-1]])
    w_back = w_hh.T

    def step(carry: tuple[Hidden, Hidden], at_t: tuple[_Saved, Array, Array]) -> tuple[tuple[Hidden, Hidden], Array]:
        dh, dc = carry
        (i, f, g, o, c, _), c_prev, d_output = at_t
        dh = dh + d_output
        tanh_c = jnp.tanh(c)
        dc = dc + dh * o * (1 - tanh_c * tanh_c)
        d_gates = jnp.concatenate(
            [dc * g * i * (1 - i), dc * c_prev * f * (1 - f), dc * i * (1 - g * g), dh * tanh_c * o * (1 - o)], axis=-1
        )
        return (dense(d_gates, w_back), dc * f), d_gates

    (dh0, dc0), d_gates = jax.lax.scan(
        step, (dh_last, dc_last), (saved, c_before, jnp.swapaxes(d_outputs, 0, 1)), reverse=True
    )
    dw_hh = jnp.einsum(
        "tbg,tbh->gh", d_gates.astype(w_hh.dtype), h_before.astype(w_hh.dtype), preferred_element_type=jnp.float32
    )
    return jnp.swapaxes(d_gates, 0, 1), dw_hh.astype(w_hh.dtype), dh0, dc0


_trained_layer = jax.custom_vjp(_layer)
_trained_layer.defvjp(_forward, _backward)
