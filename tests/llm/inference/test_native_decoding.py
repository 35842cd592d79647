"""The kernel's own chunks against XLA's, drawn from the same logits: tokens, scores, and what is left behind."""

import jax
import numpy as np
import pytest

from functions.llm.inference import programs
from functions.llm.inference.programs import MAX_CHUNK, DecodeState, Forced, program_specs, stacked
from functions.llm.inference.sampling import History, Sampler, SamplingOptions
from functions.llm.models import LSTMConfig, MinGRUConfig
from functions.llm.native.accelerated import accelerated
from tests.llm.native.conftest import built, kernel  # noqa: F401 - fixtures
from tests.llm.native.native_models import random_model

CONFIGS = [
    MinGRUConfig(vocab_size=65, width=32, hidden=48, layers=2),
    LSTMConfig(vocab_size=33, emb=6, hid=20, layers=2),
    LSTMConfig(vocab_size=5, emb=6, hid=20, layers=1),
    LSTMConfig(vocab_size=1000, emb=6, hid=20, layers=1),
]
configs = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.family}-{config.vocab_size}")

PLAIN = SamplingOptions(temperature=1.0)
GREEDY = SamplingOptions(temperature=0.0)
OPTIONS = [
    GREEDY,
    PLAIN,
    SamplingOptions(temperature=0.7, top_k=3),
    SamplingOptions(temperature=1.5, top_k=10**9),
    SamplingOptions(temperature=1.0, top_p=0.6),
    SamplingOptions(temperature=1.0, top_p=0.0),
    SamplingOptions(temperature=1.2, top_k=7, top_p=0.8, min_p=0.02),
    SamplingOptions(temperature=1.0, min_p=0.3),
    SamplingOptions(temperature=1.0, min_p=1.0),
    SamplingOptions(temperature=0.9, repetition_penalty=1.7),
    SamplingOptions(temperature=1.0, presence_penalty=1.5, frequency_penalty=-0.5),
    SamplingOptions(temperature=1.0, frequency_penalty=0.8, penalty_decay=0.9),
    SamplingOptions(temperature=0.0, repetition_penalty=3.0, frequency_penalty=2.0),
    SamplingOptions(temperature=1.0, logit_bias={0: -100.0, 2: 3.5}),
    SamplingOptions(temperature=10.0),
    SamplingOptions(temperature=1e-3),
]


def begun(model, seed):
    """Sixteen texts with all the options there are, in the midst of what they say."""
    random, vocab = np.random.default_rng(seed), model.config.vocab_size
    rows = []
    for row, options in enumerate(OPTIONS):
        state = jax.tree.map(lambda a: random.normal(0, 1, a.shape[1:]).astype(np.float32), model.init_state(1))
        history = History.of_prompt(random.integers(0, vocab, 3).tolist(), vocab)
        history = history._replace(counts=random.integers(0, 3, vocab).astype(np.float32))
        token, position = np.int32(random.integers(vocab)), np.int32(random.integers(10_000))
        forced = Forced(random.integers(0, vocab, MAX_CHUNK).astype(np.int32), np.int32([0, 0, 3][row % 3]))
        count = np.int32([MAX_CHUNK, 5, 0, 1, 9][(row + seed) % 5])
        sampler = Sampler.from_options(options, int(random.integers(2**62)), vocab)
        rows.append((DecodeState(state, token, position, history), sampler, forced, count))
    return stacked(rows)


def assert_same_texts(args):
    """The tokens and all that follows are the same, scores as rounding lets them; return what the kernel made."""
    (drawn, after), (by_xla, after_by_xla) = programs._decode_natively(*args), programs._decode_together(*args)
    counts = args[4]
    # Beyond what a text was to make, XLA leaves what the others' steps made of it.
    made = np.arange(MAX_CHUNK) < counts[:, None]
    np.testing.assert_array_equal(drawn.ids, np.where(made, by_xla.ids, 0))
    np.testing.assert_array_equal(drawn.top_ids, np.where(made[..., None], by_xla.top_ids, 0))
    for found, expected in (
        (drawn.logprobs, np.where(made, by_xla.logprobs, 0)),
        (drawn.top_logprobs, np.where(made[..., None], by_xla.top_logprobs, 0)),
    ):
        np.testing.assert_allclose(found, expected, atol=2e-6, rtol=2e-6)
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(after_by_xla), strict=True):
        assert a.dtype == b.dtype
        # XLA may round once where a count decays and grows.
        np.testing.assert_allclose(a, b, rtol=1e-6 if a is after.history.counts else 0, atol=0)
    return drawn


@configs
def test_the_kernel_draws_what_xla_draws(kernel, config):  # noqa: F811
    """The same bits of randomness, penalties, filters and ties, on every instruction set, alone and in company."""
    native = accelerated(random_model(config, "float32"))
    for name in kernel.supported_sets:
        kernel.use_instruction_set(name)
        for seed in range(4):
            assert_same_texts((native, *begun(native, seed), np.bool_(seed % 2)))


def test_of_equals_the_lowest_id_is_drawn_and_named(kernel):  # noqa: F811
    """Where all logits are equal."""
    config = CONFIGS[1]
    model = random_model(config, "float32")
    flat = type(model)(config, {name: value * 0 for name, value in model.params.items()})
    drawn = assert_same_texts((accelerated(flat), *begun(flat, 0), np.bool_(True)))
    np.testing.assert_array_equal(drawn.top_ids[0, 0], np.arange(20))


def test_a_text_whose_numbers_are_lost_is_the_only_one(kernel):  # noqa: F811
    """NaN scores are said to be NaN, and its neighbours' tokens stay theirs."""
    native = accelerated(random_model(CONFIGS[0], "float32"))
    texts, samplers, forced, counts = begun(native, 0)
    drawn, _ = programs._decode_natively(native, texts, samplers, forced, counts, np.bool_(True))
    state = jax.tree.map(np.array, texts.model_state)
    for array in state:
        array[0] = np.nan
    broken, _ = programs._decode_natively(
        native, texts._replace(model_state=state), samplers, forced, counts, np.bool_(True)
    )
    assert np.isnan(broken.logprobs[0]).all()
    assert ((broken.ids[0] >= 0) & (broken.ids[0] < CONFIGS[0].vocab_size)).all()
    np.testing.assert_array_equal(broken.ids[1:], drawn.ids[1:])
    np.testing.assert_array_equal(broken.logprobs[1:], drawn.logprobs[1:])


def test_what_was_given_is_left_alone(kernel):  # noqa: F811
    """States and histories change in place only in copies of their own: who kept one can go on from it again."""
    native = accelerated(random_model(CONFIGS[0], "float32"))
    args = jax.device_put(begun(native, 0))
    before = jax.tree.map(np.array, args)
    first = programs._decode_natively(native, *args, np.bool_(False))
    jax.tree.map(np.testing.assert_array_equal, args, before)
    jax.tree.map(np.testing.assert_array_equal, programs._decode_natively(native, *args, np.bool_(False)), first)


@pytest.mark.parametrize("which", range(20))
def test_arrays_of_another_shape_or_type_are_refused(kernel, which):  # noqa: F811
    """XLA checks nothing of them, and the kernel would read past their end."""
    native = accelerated(random_model(CONFIGS[1], "float32"))
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(program_specs(native)["decode-4"].args[1:])]
    leaves[which] = leaves[which][None] if leaves[which].ndim == 0 else leaves[which][:-1]
    changed, read = leaves[:6], leaves[6:]
    with pytest.raises(Exception, match="huginn's kernel"):
        jax.block_until_ready(jax.jit(lambda *a: native.decode(a[:6], a[6:], MAX_CHUNK, 20))(*changed, *read))
