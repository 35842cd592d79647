"""The sampler against the same mathematics written with Python's floats, and its laws."""

import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.llm.inference.errors import InvalidOptionError
from functions.llm.inference.sampling import MAX_SEED, History, Sampler, SamplingOptions, next_token

V = 11


@jax.jit
def sample(logits, sampler, history, position):
    """The token at a position, and the history with it."""
    token = next_token(logits, sampler, history, position)
    return token, history.after(token, sampler.penalty_decay)


@jax.jit
def sample_many(logits, sampler, history, keys):
    """A token for each key."""
    return jax.vmap(lambda key: next_token(logits, sampler._replace(key_data=key), history, jnp.int32(3)))(keys)


def draw(logits, options=None, seed=0, position=5, prompt=(), output=()):
    """The token drawn after `prompt` and `output`."""
    options = options or SamplingOptions()
    sampler = Sampler.from_options(options, seed, V)
    history = History.of_prompt(np.asarray(prompt, np.int32), V)
    counts = np.zeros(V, np.float32)
    seen = np.asarray(history.seen).copy()
    for token in output:
        counts = counts * np.float32(options.penalty_decay)
        counts[token] += 1
        seen[token] = True
    token, after = sample(
        jnp.asarray(logits, jnp.float32), sampler, History(jnp.asarray(seen), jnp.asarray(counts)), jnp.int32(position)
    )
    return int(np.asarray(token)), after


def distribution(logits, options, prompt=(), output=()):
    """The probabilities by definition, one token at a time, in float64."""
    logits = [float(x) for x in logits]
    for token in set(prompt) | set(output):
        value = logits[token]
        logits[token] = value * options.repetition_penalty if value < 0 else value / options.repetition_penalty
    counts = dict.fromkeys(range(V), 0.0)
    for token in output:
        counts = {t: c * options.penalty_decay for t, c in counts.items()}
        counts[token] += 1
    for token, count in counts.items():
        logits[token] -= (count > 0) * options.presence_penalty + count * options.frequency_penalty
        logits[token] += options.logit_bias.get(token, 0.0)
    weights = {t: math.exp((x - max(logits)) / options.temperature) for t, x in enumerate(logits)}
    best_first = sorted(weights, key=lambda t: (-weights[t], t))
    kept = best_first[: options.top_k] if options.top_k else best_first
    total, running, nucleus = sum(weights[t] for t in kept), 0.0, []
    for token in kept:
        if options.top_p < 1 and running >= options.top_p * total and nucleus:
            break
        nucleus.append(token)
        running += weights[token]
    kept = [t for t in nucleus if weights[t] >= options.min_p * weights[best_first[0]]]
    total = sum(weights[t] for t in kept)
    return {t: weights[t] / total for t in kept}


# Quarters: sums and products are exact in float32, so no filter's edge depends on rounding.
quarters = st.integers(-12, 12).map(lambda n: n / 4)
logits_strategy = st.lists(quarters, min_size=V, max_size=V)
tokens_strategy = st.lists(st.integers(0, V - 1), max_size=6)
options_strategy = st.builds(
    SamplingOptions,
    temperature=st.sampled_from([0.5, 1.0, 2.0]),
    top_k=st.integers(0, V + 2),
    # No sum of the weights above comes near these by chance.
    top_p=st.sampled_from([0.0, 1e-9, 0.312345, 0.543211, 0.876543, 1.0]),
    min_p=st.sampled_from([0.0, 0.098765, 0.43210, 1.0]),
    repetition_penalty=st.sampled_from([0.5, 1.0, 2.0]),
    presence_penalty=st.sampled_from([-1.0, 0.0, 0.5]),
    frequency_penalty=st.sampled_from([-0.5, 0.0, 0.25]),
    penalty_decay=st.sampled_from([0.0, 0.5, 1.0]),
    logit_bias=st.dictionaries(st.integers(0, V - 1), quarters, max_size=3),
)


@given(logits_strategy, options_strategy, tokens_strategy, tokens_strategy, st.integers(0, MAX_SEED))
@settings(max_examples=300)
def test_only_tokens_that_the_definition_keeps_are_drawn(logits, options, prompt, output, seed):
    """Whatever the options, the draw lies in the set that penalties and filters leave."""
    token, _ = draw(logits, options, seed, prompt=prompt, output=output)
    assert token in distribution(logits, options, prompt, output)


@pytest.mark.parametrize(
    "options",
    [
        SamplingOptions(temperature=1.0),
        SamplingOptions(temperature=0.7, top_k=4),
        SamplingOptions(temperature=1.3, top_p=0.8),
        SamplingOptions(temperature=1.0, min_p=0.2),
        SamplingOptions(
            temperature=0.9, top_k=8, top_p=0.95, min_p=0.02, repetition_penalty=1.3, presence_penalty=0.4,
            frequency_penalty=0.3, penalty_decay=0.5, logit_bias={2: 1.5, 9: -3.0},
        ),
    ],
)  # fmt: skip
def test_draws_follow_the_distribution(options):
    """Frequencies over 4,000 seeds pass a chi-square test against the definition."""
    logits = np.linspace(-2, 2, V) * [1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1]
    prompt, output = [1, 2], [3, 3, 4]
    expected = distribution(logits, options, prompt, output)
    seen = np.zeros(V, bool)
    seen[[1, 2, 3, 4]] = True
    counts = np.zeros(V, np.float32)
    for token in output:
        counts *= options.penalty_decay
        counts[token] += 1
    sampler = Sampler.from_options(options, 0, V)
    n = 4000
    keys = jnp.stack([jnp.zeros(n, jnp.uint32), jnp.arange(n, dtype=jnp.uint32)], axis=1)

    history = History(jnp.asarray(seen), jnp.asarray(counts))
    drawn = Counter(np.asarray(sample_many(jnp.asarray(logits, jnp.float32), sampler, history, keys)).tolist())
    assert drawn.keys() <= expected.keys()
    chi_square = sum((drawn[t] - n * p) ** 2 / (n * p) for t, p in expected.items())
    # The 0.9999 quantile of chi-square with 10 degrees of freedom; fewer tokens kept only make it less.
    assert chi_square < 35.6


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=V, max_size=V))
def test_greedy_ties_go_to_the_lowest_id(logits):
    """Temperature 0 is the first of the largest."""
    assert draw(logits, SamplingOptions(temperature=0.0))[0] == logits.index(max(logits))


@given(logits_strategy, st.integers(0, MAX_SEED))
def test_top_1_is_greedy(logits, seed):
    """With one token kept there is nothing to draw: ties again go to the lowest id."""
    assert draw(logits, SamplingOptions(temperature=5.0, top_k=1), seed)[0] == logits.index(max(logits))


@given(logits_strategy, st.sampled_from([1e-300, 1e-45, 1e-30, 9e-7]), st.integers(0, MAX_SEED))
def test_tiny_temperatures_are_greedy(logits, temperature, seed):
    """Ties included: never a draw by rounding, never a token out of nowhere."""
    assert draw(logits, SamplingOptions(temperature=temperature), seed)[0] == logits.index(max(logits))


@given(logits_strategy, st.integers(0, MAX_SEED))
def test_the_smallest_temperature_leaves_only_the_likeliest(logits, seed):
    """Dividing by it overflows nothing."""
    assert logits[draw(logits, SamplingOptions(temperature=1e-6), seed)[0]] == max(logits)


def test_a_tiny_repetition_penalty_never_overflows():
    """Dividing by almost nothing still leaves numbers that can be compared."""
    logits = [0.0, 1.0, 2.0, -1.0] + [-5.0] * (V - 4)
    options = SamplingOptions(temperature=0.5, repetition_penalty=1e-300)
    assert draw(logits, options, prompt=[0, 1, 2, 3])[0] == 2


def test_the_history_counts_and_decays():
    """Counts fade at every token, the drawn one's grows by 1, and what was seen stays seen."""
    logits = [9.0] + [0.0] * (V - 1)
    _, after = draw(logits, SamplingOptions(temperature=0.0, penalty_decay=0.5), prompt=[7], output=[3, 0])
    np.testing.assert_array_equal(np.asarray(after.counts), [1.5, 0, 0, 0.25] + [0] * (V - 4))
    np.testing.assert_array_equal(np.flatnonzero(after.seen), [0, 3, 7])


def test_the_seed_is_used_whole():
    """Seeds that differ only above bit 32 give different draws, and small ones are jax.random.key's."""
    flat = [0.0] * V
    options = SamplingOptions(temperature=1.0)
    draws = {tuple(draw(flat, options, 1 + (high << 32), position)[0] for position in range(8)) for high in range(8)}
    assert len(draws) == 8
    key_data = Sampler.from_options(options, 1234, V).key_data
    np.testing.assert_array_equal(key_data, jax.random.key_data(jax.random.key(1234, impl="threefry2x32")))


def test_nothing_compiles_for_new_options():
    """Options are arrays: one compiled sampler serves every request."""
    draw([0.0] * V)
    compiled = sample._cache_size()
    draw(
        [1.0] * V, SamplingOptions(temperature=0.0, top_k=3, top_p=0.5, min_p=0.1, logit_bias={1: 2.0}), 77, 9, [1], [2]
    )
    assert sample._cache_size() == compiled


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1), ("temperature", 10.1), ("temperature", math.nan), ("top_k", -1), ("top_p", -0.1),
        ("top_p", 1.01), ("min_p", -0.1), ("min_p", 1.1), ("repetition_penalty", 0.0), ("repetition_penalty", math.inf),
        ("presence_penalty", 2.1), ("frequency_penalty", -2.1), ("penalty_decay", 1.1), ("logit_bias", {1: 100.5}),
        ("logit_bias", {-1: 0.0}),
    ],
)  # fmt: skip
def test_options_outside_their_range_are_refused_by_name(field, value):
    """A bad value never becomes an object."""
    with pytest.raises(InvalidOptionError, match=rf"^{field} ") as refused:
        SamplingOptions(**{field: value})
    assert refused.value.field == field


@given(logits_strategy, st.integers(0, MAX_SEED))
def test_top_p_of_0_is_greedy(logits, seed):
    """The likeliest token alone, and of equals the one of the lowest id."""
    token, _ = draw(logits, SamplingOptions(temperature=1.5, top_p=0.0), seed)
    assert token == draw(logits, SamplingOptions(temperature=0.0), seed)[0]


def test_a_bias_outside_the_vocabulary_is_refused():
    """The ids are known only once the model is."""
    with pytest.raises(InvalidOptionError, match="ids are 0 to 10"):
        Sampler.from_options(SamplingOptions(logit_bias={V: 1.0}), 0, V)
