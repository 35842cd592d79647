"""From logits to the next token: penalties, filters, and a draw that depends on the seed and the position alone.

The order is fixed: repetition penalty, presence and frequency penalties, logit bias, temperature, top-k, top-p, min-p,
draw. All options are arrays, so a request never compiles anything; only filters that are on cost a sort.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from functions.llm.array_types import Array, Float, Int, on_host
from functions.llm.inference.errors import InvalidOptionError

MAX_SEED = 2**63 - 1
# Nothing is divided by less: in float32 it may be 0, and 0/0 would be a token out of nowhere. To any eye a temperature
# below it is greedy.
SMALLEST_DIVISOR = 1e-6


@dataclass(frozen=True)
class SamplingOptions:
    """How the next token is chosen.

    Args:
        temperature: 0 to 10; 0 is greedy, ties going to the lowest id.
        top_k: the k likeliest tokens stay; 0 is off.
        top_p: the likeliest tokens stay until their probabilities reach p, 0 to 1; 1 is off, with 0 one stays.
        min_p: tokens stay that are at least this times as likely as the likeliest, 0 to 1; 0 is off.
        repetition_penalty: divides positive and multiplies negative logits of tokens of prompt and output, in (0, 10]
            (Keskar et al. 2019, arXiv:1909.05858).
        presence_penalty: subtracted from the logits of tokens of the output, -2 to 2.
        frequency_penalty: subtracted times how often the output has the token, -2 to 2.
        penalty_decay: the counts are multiplied by it at each token, 0 to 1.
        logit_bias: added to the logits, by token id, -100 to 100.
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_decay: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        _check_range("temperature", self.temperature, 0, 10)
        _check_range("top_k", self.top_k, 0, 2**31 - 1)
        _check_range("top_p", self.top_p, 0, 1)
        _check_range("min_p", self.min_p, 0, 1)
        _check_range("repetition_penalty", self.repetition_penalty, 0, 10, above=True)
        _check_range("presence_penalty", self.presence_penalty, -2, 2)
        _check_range("frequency_penalty", self.frequency_penalty, -2, 2)
        _check_range("penalty_decay", self.penalty_decay, 0, 1)
        for token_id, bias in self.logit_bias.items():
            _check_range("logit_bias", bias, -100, 100)
            if token_id < 0:
                raise InvalidOptionError("logit_bias", f"names the token id {token_id}; ids begin at 0.")


class Sampler(NamedTuple):
    """The options and the seed of one text as arrays of fixed shapes."""

    temperature: Float[Array, ""]
    top_k: Int[Array, ""]
    top_p: Float[Array, ""]
    min_p: Float[Array, ""]
    repetition_penalty: Float[Array, ""]
    presence_penalty: Float[Array, ""]
    frequency_penalty: Float[Array, ""]
    penalty_decay: Float[Array, ""]
    logit_bias: Float[Array, " V"]
    key_data: Array

    @classmethod
    def from_options(cls, options: SamplingOptions, seed: int, vocab_size: int) -> Self:
        """Return the sampler of ``options`` for a vocabulary; InvalidOptionError if a bias names a token outside it."""
        bias = np.zeros(vocab_size, np.float32)
        for token_id, value in options.logit_bias.items():
            if token_id >= vocab_size:
                raise InvalidOptionError("logit_bias", f"names the token id {token_id}; ids are 0 to {vocab_size - 1}.")
            bias[token_id] = value
        return cls(
            temperature=_scalar(options.temperature if options.temperature >= SMALLEST_DIVISOR else 0.0),
            top_k=on_host(options.top_k, np.int32),
            top_p=_scalar(options.top_p),
            min_p=_scalar(options.min_p),
            repetition_penalty=_scalar(max(options.repetition_penalty, SMALLEST_DIVISOR)),
            presence_penalty=_scalar(options.presence_penalty),
            frequency_penalty=_scalar(options.frequency_penalty),
            penalty_decay=_scalar(options.penalty_decay),
            logit_bias=on_host(bias, np.float32),
            # jax.random.key(seed), whole: without 64-bit integers it would drop the seed's upper half.
            key_data=on_host([seed >> 32, seed & 0xFFFFFFFF], np.uint32),
        )


class History(NamedTuple):
    """What the penalties remember: which tokens were in prompt or output, and the (decayed) counts of the output."""

    seen: Array
    counts: Float[Array, " V"]

    @classmethod
    def of_prompt(cls, tokens: Sequence[int], vocab_size: int) -> Self:
        """Return the history before the first token is drawn."""
        seen = np.zeros(vocab_size, np.bool_)
        seen[np.asarray(tokens, np.int32)] = True
        return cls(on_host(seen, np.bool_), on_host(np.zeros(vocab_size), np.float32))

    def after(self, token: Int[Array, ""], penalty_decay: Float[Array, ""]) -> Self:
        """Return the history that includes one more token of the output."""
        return type(self)(self.seen.at[token].set(True), (self.counts * penalty_decay).at[token].add(1.0))


def next_token(
    logits: Float[Array, " V"], sampler: Sampler, history: History, position: Int[Array, ""]
) -> Int[Array, ""]:
    """Return the token at ``position`` of the whole sequence.

    The randomness is fold_in(key(seed), position): the same request gives the same tokens however it is cut.
    """
    penalised = _penalised(logits, sampler, history)
    token = jax.lax.cond(sampler.temperature == 0.0, _likeliest, _drawn, penalised, sampler, position)
    return jnp.asarray(token)


def _penalised(logits: Float[Array, " V"], sampler: Sampler, history: History) -> Float[Array, " V"]:
    penalty = sampler.repetition_penalty
    repeated = jnp.where(logits < 0, logits * penalty, logits / penalty)
    logits = jnp.where(history.seen, repeated, logits)
    present = (history.counts > 0).astype(logits.dtype)
    logits = logits - present * sampler.presence_penalty - history.counts * sampler.frequency_penalty
    return logits + sampler.logit_bias


def _likeliest(logits: Float[Array, " V"], _sampler: Sampler, _position: Int[Array, ""]) -> Int[Array, ""]:
    return jnp.argmax(logits).astype(jnp.int32)


def _drawn(logits: Float[Array, " V"], sampler: Sampler, position: Int[Array, ""]) -> Int[Array, ""]:
    # From the maximum, so that a small temperature sends the others to -inf and never the best to +inf.
    scaled = (logits - jnp.max(logits)) / sampler.temperature
    sorted_filter_on = (sampler.top_k > 0) | (sampler.top_p < 1.0)
    kept = jax.lax.cond(sorted_filter_on, _in_nucleus, _everything, scaled, sampler)
    # min_p * p_max <= p; the maximum of scaled is 0. log(0) = -inf keeps everything.
    kept = kept & (scaled >= jnp.log(sampler.min_p))
    key = jax.random.wrap_key_data(sampler.key_data, impl="threefry2x32")
    key = jax.random.fold_in(key, position.astype(jnp.uint32))
    return jax.random.categorical(key, jnp.where(kept, scaled, -jnp.inf)).astype(jnp.int32)


def _everything(scaled: Float[Array, " V"], _sampler: Sampler) -> Array:
    return jnp.ones(scaled.shape, jnp.bool_)


def _in_nucleus(scaled: Float[Array, " V"], sampler: Sampler) -> Array:
    """Return which tokens top-k and then top-p keep: always the likeliest, and of equals the lowest ids."""
    ids = jnp.arange(scaled.shape[0], dtype=jnp.int32)
    descending, order = jax.lax.sort_key_val(-scaled, ids, is_stable=True)
    in_top_k = (sampler.top_k == 0) | (ids < sampler.top_k)
    probabilities = jax.nn.softmax(jnp.where(in_top_k, -descending, -jnp.inf))
    before = jnp.cumsum(probabilities) - probabilities
    in_top_p = (before < sampler.top_p) | (sampler.top_p >= 1.0)
    count = jnp.maximum(jnp.sum((in_top_k & in_top_p).astype(jnp.int32)), 1)
    # Both keep the first `count` of the sorted tokens, so the last one kept decides for all, without a scatter.
    last, last_id = -descending[count - 1], order[count - 1]
    return (scaled > last) | ((scaled == last) & (ids <= last_id))


def _scalar(value: float) -> Array:
    scalar: Array = on_host(value, np.float32)
    return scalar


def _check_range(name: str, value: float, low: float, high: float, *, above: bool = False) -> None:
    inside = (low < value if above else low <= value) and value <= high
    if not (math.isfinite(value) and inside):
        raise InvalidOptionError(
            name, f"is {value}; it must be {'above' if above else 'at least'} {low} and at most {high}."
        )
