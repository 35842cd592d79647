"""h_t = a_t * h_{t-1} + b_t, for all t at once."""

from functools import partial

import jax
import jax.numpy as jnp

from functions.llm.array_types import Array, Float

Sequence = Float[Array, "B T D"]
Start = Float[Array, "B D"]


@jax.custom_vjp
def linear_recurrence(a: Sequence, b: Sequence, h0: Start) -> Sequence:
    """Return h_1..h_T of ``h_t = a_t * h_{t-1} + b_t``, starting at h0."""
    b = b.at[:, 0].add(a[:, 0] * h0)
    return b if a.shape[1] == 1 else _solve(a, b)


def _solve(a: Sequence, b: Sequence, *, reverse: bool = False) -> Sequence:
    # A CPU has few lanes and B x D of them fill it: there a plain loop reads memory once and is 5 times faster.
    return jnp.asarray(
        jax.lax.platform_dependent(
            a, b, cpu=partial(sequential_scan, reverse=reverse), default=partial(parallel_scan, reverse=reverse)
        )
    )


def parallel_scan(a: Sequence, b: Sequence, *, reverse: bool = False) -> Sequence:
    """Return h of ``h_t = a_t * h_{t-1} + b_t`` with h_0 = 0, in O(log T) steps.

    The pairs (a, b) compose associatively: (a2, b2) after (a1, b1) is (a2 a1, a2 b1 + b2)
    (Blelloch 1990; Martin & Cundy 2018, arXiv:1709.04057).
    """

    def after(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
        return first[0] * second[0], second[0] * first[1] + second[1]

    _, h = jax.lax.associative_scan(after, (a, b), axis=1, reverse=reverse)
    return jnp.asarray(h)


def sequential_scan(a: Sequence, b: Sequence, *, reverse: bool = False) -> Sequence:
    """Return the same as `parallel_scan`, in T steps of half the work."""

    def step(h: Array, at_t: tuple[Array, Array]) -> tuple[Array, Array]:
        h = at_t[0] * h + at_t[1]
        return h, h

    time_first = jnp.swapaxes(a, 0, 1), jnp.swapaxes(b, 0, 1)
    _, h = jax.lax.scan(step, jnp.zeros_like(b[:, 0]), time_first, reverse=reverse)
    return jnp.swapaxes(h, 0, 1)


def _forward(a: Sequence, b: Sequence, h0: Start) -> tuple[Sequence, tuple[Sequence, Sequence, Start]]:
    h = linear_recurrence(a, b, h0)
    return h, (a, h, h0)


def _backward(saved: tuple[Sequence, Sequence, Start], dh: Sequence) -> tuple[Sequence, Sequence, Start]:
    """Run the recurrence backwards: g_t = dh_t + a_{t+1} g_{t+1}."""
    a, h, h0 = saved
    a_next = jnp.concatenate([a[:, 1:], jnp.ones_like(a[:, :1])], axis=1)
    g = dh if a.shape[1] == 1 else _solve(a_next, dh, reverse=True)
    h_before = jnp.concatenate([h0[:, None], h[:, :-1]], axis=1)
    return g * h_before, g, g[:, 0] * a[:, 0]


linear_recurrence.defvjp(_forward, _backward)
