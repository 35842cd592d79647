"""The laws of a recurrent language model, for every family."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.llm.models import ConfigError, RecurrentLM, build_model
from functions.llm.ops.quantized import dequantize, quantize

# Sums in another order: float32 rounding of values around 1, over a dozen terms and two layers.
CLOSE = {"rtol": 1e-5, "atol": 2e-6}
LENGTH = 12
VOCABULARY = 11

# Compiled once a shape: operation by operation, a loop over time is traced anew at every call.
scan = jax.jit(lambda model, tokens, state: model.scan(tokens, state))
step = jax.jit(lambda model, tokens, state: model.step(tokens, state))

texts = st.lists(
    st.lists(st.integers(0, VOCABULARY - 1), min_size=LENGTH, max_size=LENGTH), min_size=2, max_size=2
).map(lambda rows: jnp.asarray(rows, jnp.int32))
places = st.integers(1, LENGTH - 1)


def assert_trees_close(found: object, expected: object) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), found, expected)


@given(tokens=texts)
def test_a_scan_equals_its_steps(model: RecurrentLM, tokens: jax.Array) -> None:
    """Feeding tokens one at a time gives the logits and the state of one pass."""
    logits, state = scan(model, tokens, model.init_state(2))
    stepped = model.init_state(2)
    for t in range(LENGTH):
        step_logits, stepped = step(model, tokens[:, t], stepped)
        np.testing.assert_allclose(step_logits, logits[:, t], **CLOSE)
    assert_trees_close(stepped, state)


@given(tokens=texts, others=texts, place=places)
def test_later_tokens_never_change_earlier_logits(
    model: RecurrentLM, tokens: jax.Array, others: jax.Array, place: int
) -> None:
    changed = jnp.concatenate([tokens[:, :place], others[:, place:]], axis=1)
    logits, _ = scan(model, tokens, model.init_state(2))
    changed_logits, _ = scan(model, changed, model.init_state(2))
    np.testing.assert_array_equal(changed_logits[:, :place], logits[:, :place])


@given(tokens=texts, place=places)
def test_resuming_equals_never_having_stopped(model: RecurrentLM, tokens: jax.Array, place: int) -> None:
    whole, end = scan(model, tokens, model.init_state(2))
    before, state = scan(model, tokens[:, :place], model.init_state(2))
    after, resumed_end = scan(model, tokens[:, place:], state)
    np.testing.assert_allclose(jnp.concatenate([before, after], axis=1), whole, **CLOSE)
    assert_trees_close(resumed_end, end)


@given(tokens=texts)
def test_texts_of_a_batch_do_not_meet(model: RecurrentLM, tokens: jax.Array) -> None:
    """Each row's logits are those it has alone."""
    together, _ = scan(model, tokens, model.init_state(2))
    for row in range(2):
        alone, _ = scan(model, tokens[row : row + 1], model.init_state(1))
        np.testing.assert_allclose(alone[0], together[row], **CLOSE)


def test_what_was_read_is_remembered(model: RecurrentLM) -> None:
    """The same token after another past gives other logits: the state is not ignored."""
    first, second = (jnp.asarray([[a, 5, 5, 5]], jnp.int32) for a in (1, 2))
    logits = [model.scan(tokens, model.init_state(1))[0][0, -1] for tokens in (first, second)]
    assert np.abs(np.asarray(logits[0]) - np.asarray(logits[1])).max() > 1e-4


def test_the_state_has_the_batch_first_and_a_fixed_size(model: RecurrentLM) -> None:
    before = model.init_state(2)
    _, after = model.scan(jnp.zeros((2, 9), jnp.int32), before)
    assert [leaf.shape[0] for leaf in jax.tree.leaves(after)] == [2] * len(jax.tree.leaves(after))
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, before)


def test_a_model_passes_through_jit_and_compiles_once_a_shape(model: RecurrentLM) -> None:
    traces = []

    @jax.jit
    def step(model: RecurrentLM, tokens: jax.Array, state: object) -> object:
        traces.append(1)
        return model.step(tokens, state)

    doubled = type(model)(model.config, {name: 2 * value for name, value in model.params.items()})
    tokens = jnp.asarray([1])
    first, second = (step(m, tokens, m.init_state(1))[0] for m in (model, doubled))
    assert len(traces) == 1
    assert not np.array_equal(first, second)


def test_bfloat16_matrices_give_about_the_same_logits(model: RecurrentLM) -> None:
    """Within bfloat16's 8 bits, and the state stays in float32."""
    tokens = jnp.arange(8, dtype=jnp.int32)[None]
    rounded = type(model)(
        model.config, {n: v.astype(jnp.bfloat16) if v.ndim > 1 else v for n, v in model.params.items()}
    )
    with jax.numpy_dtype_promotion("standard"):
        logits, state = rounded.scan(tokens, model.init_state(1))
    expected, _ = model.scan(tokens, model.init_state(1))
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(logits, expected, atol=0.05)
    assert not np.array_equal(logits, expected)


def test_int8_matrices_give_the_logits_of_what_they_stand_for_in_steps_too(model: RecurrentLM) -> None:
    """To float32's rounding; and they are near those of the model they were made of."""
    tokens = jnp.arange(8, dtype=jnp.int32)[None]
    quantizable = model.config.dense_weights()
    int8, meant = (
        type(model)(model.config, {n: f(v) if n in quantizable else v for n, v in model.params.items()})
        for f in (quantize, lambda v: dequantize(quantize(v)))
    )
    logits, state = int8.scan(tokens, model.init_state(1))
    expected, _ = meant.scan(tokens, model.init_state(1))
    np.testing.assert_allclose(logits, expected, **CLOSE)
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(logits, model.scan(tokens, model.init_state(1))[0], atol=0.05)
    state = model.init_state(1)
    for t in range(tokens.shape[1]):
        stepped, state = int8.step(tokens[:, t], state)
        np.testing.assert_allclose(stepped, logits[:, t], **CLOSE)


def test_every_matrix_that_dense_reads_and_no_other_parameter_may_be_int8(model: RecurrentLM) -> None:
    quantizable = model.config.dense_weights()
    assert {len(model.config.param_shapes()[name]) for name in quantizable} == {2}
    for name, value in model.params.items():
        if value.ndim == 2:
            params = dict(model.params) | {name: quantize(value)}
            if name in quantizable:
                build_model(model.config, params)
            else:
                with pytest.raises(ConfigError, match=f"{name} is int8"):
                    build_model(model.config, params)


def test_dropout_acts_only_with_a_key(model: RecurrentLM) -> None:
    from dataclasses import replace

    dropping = type(model)(replace(model.config, dropout=0.5), model.params)
    tokens = jnp.arange(8, dtype=jnp.int32)[None]
    state = model.init_state(1)
    plain, silent = model.scan(tokens, state)[0], dropping.scan(tokens, state)[0]
    one, same, other = (dropping.scan(tokens, state, jax.random.key(seed))[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(silent, plain)
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, plain)
    assert not np.allclose(one, other)
