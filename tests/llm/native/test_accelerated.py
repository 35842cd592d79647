"""What the kernel computes: the model's own numbers, the same to the bit in any company and however it is cut."""

import sys
import threading
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.llm.models import LSTM, LSTMConfig, MinGRU, MinGRUConfig
from functions.llm.native import accelerated as accelerated_module
from functions.llm.native.accelerated import accelerated
from functions.llm.native.aligned import HUGE_PAGE, aligned_bytes
from tests.llm.native.native_models import PRECISIONS, random_model

# Largest difference from the XLA model, in shares of the largest number. float32: the order of the sums. bfloat16:
# where a sum differs in its last bit it may be rounded to the neighbour, 1/256 away, and later layers go on from there.
# int8: the kernel rounds activations to 16 bits, XLA does not.
TOLERANCE = {"float32": 2e-5, "bfloat16": 3e-2, "int8": 1e-3}

CONFIGS = [
    # Whole panels of 16, several groups.
    MinGRUConfig(vocab_size=65, width=64, hidden=96, layers=2),
    LSTMConfig(vocab_size=97, emb=64, hid=96, layers=2),
    # Nothing fits.
    MinGRUConfig(vocab_size=11, width=33, hidden=50, layers=2, conv=3, mlp=3),
    LSTMConfig(vocab_size=33, emb=6, hid=70, layers=3),
]

precisions = pytest.mark.parametrize("precision", PRECISIONS)
configs = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.family}-{config.vocab_size}")

scan = jax.jit(lambda model, tokens, state: model.scan(tokens, state))
step = jax.jit(lambda model, tokens, state: model.step(tokens, state))


def random_texts(model, texts, length, seed=0):
    """Tokens, and a state as of texts that have begun."""
    random = np.random.default_rng(seed)
    tokens = jnp.asarray(random.integers(0, model.config.vocab_size, (texts, length)), jnp.int32)
    state = jax.tree.map(lambda a: jnp.asarray(random.normal(0, 0.3, a.shape), jnp.float32), model.init_state(texts))
    return tokens, state


def assert_close(found, expected, tolerance):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, float(jnp.abs(b).max(initial=0))))


def assert_same_bits(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(a).view(np.uint32), np.asarray(b).view(np.uint32))


@configs
def test_the_packed_weights_lie_where_they_were_made(built, config, monkeypatch):
    """In the huge pages: a copy would be neither there nor free."""
    made = []

    def remembered(count):
        made.append(aligned_bytes(count))
        return made[-1]

    monkeypatch.setattr(accelerated_module, "aligned_bytes", remembered)
    native = accelerated(random_model(config, "float32"))
    assert [native.packed.unsafe_buffer_pointer()] == [packed.ctypes.data for packed in made]


@pytest.mark.skipif(sys.platform != "linux", reason="huge pages are asked for as Linux has them")
def test_memory_for_weights_may_have_huge_pages():
    """Shared memory, which is Python's default, never has any, and a model's every pass would wait for page tables."""
    memory = aligned_bytes(5 * HUGE_PAGE)
    assert memory.ctypes.data % HUGE_PAGE == 0
    ranges = [line.split()[:2] for line in Path("/proc/self/maps").read_text().splitlines()]
    (access,) = [
        access
        for addresses, access in ranges
        if int(addresses.partition("-")[0], 16) <= memory.ctypes.data < int(addresses.partition("-")[2], 16)
    ]
    assert access == "rw-p"


sizes = st.integers(1, 40)
some_configs = st.one_of(
    st.builds(
        MinGRUConfig, vocab_size=sizes, width=sizes, hidden=sizes, layers=st.integers(1, 2), conv=st.integers(1, 4),
        mlp=st.integers(1, 3),
    ),
    st.builds(LSTMConfig, vocab_size=sizes, emb=sizes, hid=sizes, layers=st.integers(1, 2)),
)  # fmt: skip


@settings(max_examples=12)
@given(
    config=some_configs, precision=st.sampled_from(sorted(PRECISIONS)), texts=st.integers(1, 9),
    length=st.integers(1, 9), seed=st.integers(0, 2**16),
)  # fmt: skip
def test_any_shape_equals_xla(built, config, precision, texts, length, seed):
    """Logits and state are the model's own, whatever its sizes and weights."""
    model = random_model(config, precision, seed)
    tokens, state = random_texts(model, texts, length, seed)
    assert_close(scan(accelerated(model), tokens, state), scan(model, tokens, state), TOLERANCE[precision])


@precisions
@configs
def test_every_instruction_set_equals_xla(kernel, config, precision):
    """Not only the one that this CPU would choose."""
    model = random_model(config, precision)
    tokens, state = random_texts(model, texts=5, length=7)
    expected = scan(model, tokens, state)
    native = accelerated(model)
    for name in kernel.supported_sets:
        kernel.use_instruction_set(name)
        assert_close(scan(native, tokens, state), expected, TOLERANCE[precision])


@precisions
@configs
def test_rows_do_not_depend_on_the_batch(kernel, config, precision):
    """A text has the same numbers alone, among others, and in whatever place: bit by bit, on every instruction set."""
    native = accelerated(random_model(config, precision))
    tokens, state = random_texts(native, texts=17, length=3)
    for name in kernel.supported_sets:
        kernel.use_instruction_set(name)
        whole = scan(native, tokens, state)
        for rows in ([0], [16], [3, 9], [8, 2, 1, 0, 16], list(range(6)), list(range(16, 4, -1))):
            pick = np.array(rows)
            part = scan(native, tokens[pick], jax.tree.map(lambda a, pick=pick: a[pick], state))
            assert_same_bits(part, jax.tree.map(lambda a, pick=pick: a[pick], whole))


@precisions
@configs
def test_a_scan_is_its_steps(kernel, config, precision):
    """However a text is cut, bit by bit; more rows than go through the network at once are no exception."""
    native = accelerated(random_model(config, precision))
    tokens, state = random_texts(native, texts=3, length=50)
    for name in kernel.supported_sets:
        kernel.use_instruction_set(name)
        logits, end = scan(native, tokens, state)
        for cut in (1, 16, 49):
            first, middle = scan(native, tokens[:, :cut], state)
            second, last = scan(native, tokens[:, cut:], middle)
            assert_same_bits((jnp.concatenate([first, second], axis=1), last), (logits, end))
        after = state
        for t in range(tokens.shape[1]):
            row, after = step(native, tokens[:, t], after)
            assert_same_bits(row, logits[:, t])
        assert_same_bits(after, end)


def test_the_number_of_threads_changes_nothing(kernel):
    """One thread or two: who computed a number cannot be seen in it."""
    for config in CONFIGS:
        native = accelerated(random_model(config, "float32"))
        tokens, state = random_texts(native, texts=6, length=9)
        kernel.use_threads(1)
        alone = scan(native, tokens, state)
        kernel.use_threads(2)
        for _ in range(20):
            assert_same_bits(scan(native, tokens, state), alone)


def test_two_callers_do_not_disturb_each_other(kernel):
    """The worker helps one of them, and the other does its work itself."""
    kernel.use_threads(2)
    natives = [accelerated(random_model(config, "float32")) for config in CONFIGS]
    cases = [(native, *random_texts(native, texts=4, length=5)) for native in natives]
    expected = [scan(*case) for case in cases]
    failures = []

    def call(index):
        try:
            for _ in range(100):
                assert_same_bits(scan(*cases[index]), expected[index])
        except AssertionError as error:
            failures.append(error)

    callers = [threading.Thread(target=call, args=(index % len(cases),)) for index in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert failures == []


@configs
def test_a_loop_of_steps_within_one_program(kernel, config):
    """As a server decodes: the kernel inside lax.fori_loop, each token from the logits before it."""
    model = random_model(config, "float32")

    @partial(jax.jit, static_argnames="count")
    def decode(model, tokens, state, count):
        def one(index, carry):
            ids, tokens, state = carry
            logits, state = model.step(tokens, state)
            tokens = jnp.argmax(logits, axis=-1).astype(jnp.int32)
            return ids.at[index].set(tokens), tokens, state

        return jax.lax.fori_loop(0, count, one, (jnp.zeros((count, *tokens.shape), jnp.int32), tokens, state))

    tokens, state = random_texts(model, texts=4, length=1)
    native = accelerated(model)
    found_ids, _, found_state = decode(native, tokens[:, 0], state, 12)
    expected_ids, _, expected_state = decode(model, tokens[:, 0], state, 12)
    np.testing.assert_array_equal(found_ids, expected_ids)
    assert_close(found_state, expected_state, 1e-4)


def test_the_state_that_was_given_is_left_alone(kernel):
    """The kernel changes states in place, and XLA sees to it that nobody notices who kept one to fork it."""
    for config in CONFIGS:
        native = accelerated(random_model(config, "float32"))
        tokens, state = random_texts(native, texts=2, length=3)
        before = jax.tree.map(np.array, state)
        first = scan(native, tokens, state)
        assert_same_bits(state, before)
        assert_same_bits(scan(native, tokens, state), first)


def test_tokens_out_of_range_read_nothing_else(kernel):
    """They are taken for the nearest token, and negative ones from the end, as XLA's gather does."""
    for config in CONFIGS:
        model = random_model(config, "float32")
        vocab = config.vocab_size
        tokens = jnp.asarray([[-1, vocab, -vocab - 1, 2**31 - 1, -(2**31), 0]], jnp.int32)
        state = model.init_state(1)
        assert_close(scan(accelerated(model), tokens, state), scan(model, tokens, state), 2e-5)


@precisions
@configs
def test_what_is_no_number_stays_in_its_row(kernel, config, precision):
    """A NaN in one text's state makes that text's logits NaN, and nobody else's."""
    native = accelerated(random_model(config, precision))
    tokens, state = random_texts(native, texts=7, length=2)
    expected, _ = scan(native, tokens, state)
    broken = jax.tree.map(lambda a: a.at[3].set(jnp.nan), state)
    for name in kernel.supported_sets:
        kernel.use_instruction_set(name)
        expected, _ = scan(native, tokens, state)
        logits, _ = scan(native, tokens, broken)
        assert jnp.isnan(logits[3]).all()
        others = np.array([0, 1, 2, 4, 5, 6])
        assert_same_bits(logits[others], expected[others])


def test_large_numbers_do_not_overflow(kernel):
    """Gates that are wide open or shut are 1 or 0, not NaN."""
    for config in CONFIGS:
        model = random_model(config, "float32")
        loud = type(model)(config, {name: value * 300 for name, value in model.params.items()})
        tokens, state = random_texts(model, texts=2, length=4)
        for name in kernel.supported_sets:
            kernel.use_instruction_set(name)
            logits, after = scan(accelerated(loud), tokens, state)
            expected, _ = scan(loud, tokens, state)
            assert jnp.isfinite(logits).all()
            assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(after))
            np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-3 * float(jnp.abs(expected).max()))


def test_a_native_model_is_one_array(kernel):
    """Its tree has one leaf, which is what serving passes to its programs; configuration and state are the model's."""
    for config in CONFIGS:
        model = random_model(config, "int8")
        native = accelerated(model)
        (leaf,) = jax.tree.leaves(native)
        assert leaf is native.packed
        assert leaf.dtype == jnp.uint8
        assert native.config == model.config
        assert jax.tree.structure(native.init_state(2)) == jax.tree.structure(model.init_state(2))
        with pytest.raises(AttributeError, match="made of"):
            native.params  # noqa: B018
        with pytest.raises(TypeError, match="made of another"):
            type(native).init_params(config, jax.random.key(0))
        with pytest.raises(ValueError, match="no dropout"):
            native.scan(*random_texts(model, 1, 1), dropout_key=jax.random.key(0))


def test_embeddings_and_norms_may_be_bfloat16(kernel):
    """As a model is whose every parameter was cast; they are widened, which changes nothing."""
    for config in CONFIGS:
        model = random_model(config, "bfloat16")
        cast = type(model)(
            config,
            {
                name: value.astype(jnp.bfloat16) if name in ("embedding", "emb.weight") else value
                for name, value in model.params.items()
            },
        )
        tokens, state = random_texts(model, texts=2, length=3)
        assert_close(scan(accelerated(cast), tokens, state), scan(cast, tokens, state), TOLERANCE["bfloat16"])


def test_what_the_kernel_cannot_run_is_left_to_xla(kernel, monkeypatch):
    """Matrices of several kinds, of an unknown one, and models that are too large."""
    config = LSTMConfig(vocab_size=11, emb=6, hid=8, layers=2)
    model = random_model(config, "float32")
    mixed = dict(model.params) | {"head.weight": model.params["head.weight"].astype(jnp.bfloat16)}
    assert accelerated(LSTM(config, mixed)) is None
    half = {name: value.astype(jnp.float16) for name, value in model.params.items()}
    assert accelerated(LSTM(config, half)) is None

    class Foreign(LSTM):
        """Of no family that the kernel knows."""

    assert accelerated(model) is not None
    monkeypatch.setattr(accelerated_module, "MAX_PACKED_BYTES", 100)
    assert accelerated(model) is None


def test_where_xla_runs_on_something_else_there_is_no_kernel(monkeypatch):
    """On a GPU even a small model is XLA's: the kernel is code for the CPU, and XLA there would not find the call."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    config = MinGRUConfig(vocab_size=8, width=8, hidden=8, layers=1, dropout=0.0)
    assert accelerated(MinGRU(config, MinGRU.init_params(config, jax.random.key(0)))) is None
