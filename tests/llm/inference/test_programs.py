"""The compiled functions: the same tokens however a text is cut, and whoever is beside it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.llm.inference.programs import (
    MAX_CHUNK,
    PIECES,
    DecodeState,
    Forced,
    Programs,
    batch_sizes,
    program_specs,
    stacked,
)
from functions.llm.inference.sampling import History, Sampler, SamplingOptions
from functions.llm.models import LSTM, LSTMConfig


def begun(model, prompt, state=None):
    """A text whose prompt is all read but for its last token."""
    if state is None:
        state = model.init_state(1)
        for token in prompt[:-1]:
            _, state = model.step(jnp.asarray([token]), state)
    history = History.of_prompt(prompt, model.config.vocab_size)
    alone = jax.tree.map(lambda array: np.asarray(array)[0], state)
    return DecodeState(alone, np.int32(prompt[-1]), np.int32(len(prompt) - 1), history)


def decoded(programs, prompt, options, seed, chunks, wants_top=False):
    """What each dispatch of a text alone makes."""
    model = programs.model
    text = stacked([begun(model, prompt)])
    sampler = stacked([Sampler.from_options(options, seed, model.config.vocab_size)])
    nothing = Forced(np.zeros((1, MAX_CHUNK), np.int32), np.zeros(1, np.int32))
    for count in chunks:
        drawn, text = programs.decode(text, sampler, nothing, np.asarray([count], np.int32), wants_top)
        yield jax.tree.map(lambda column, count=count: column[0, :count].tolist(), drawn)


def ids(batches):
    return [token for batch in batches for token in batch.ids]


cuts = st.lists(st.integers(1, MAX_CHUNK), min_size=2, max_size=12)
some_options = st.sampled_from(
    [
        SamplingOptions(temperature=0.0),
        SamplingOptions(temperature=1.0),
        SamplingOptions(temperature=0.9, top_k=9, top_p=0.9, min_p=0.02),
        SamplingOptions(repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=0.4, penalty_decay=0.9),
    ]
)


@pytest.mark.parametrize("name", ["char_model", "byte_model"])
@settings(max_examples=20)
@given(first=cuts, second=cuts, options=some_options, seed=st.integers(0, 2**63 - 1))
def test_the_same_tokens_in_any_chunks(request, name, first, second, options, seed):
    """A text depends on the prompt, the options and the seed, never on the chunks it was made in."""
    programs = request.getfixturevalue(name).programs
    one = ids(decoded(programs, [1, 2, 3], options, seed, first))
    other = ids(decoded(programs, [1, 2, 3], options, seed, second))
    length = min(len(one), len(other))
    assert one[:length] == other[:length]


@pytest.fixture
def level(byte_model):
    """Programs of a model that finds all tokens equally likely, always."""
    model = byte_model.checkpoint.model
    return Programs(LSTM(model.config, {name: jnp.zeros_like(array) for name, array in model.params.items()}))


def test_exact_ties_go_to_the_lowest_id_in_any_chunks(level):
    """With all logits equal a greedy text is token 0 for ever, and a drawn one is the same in any chunks."""
    assert ids(decoded(level, [5], SamplingOptions(temperature=0.0), 0, [1, 4, 16])) == [0] * 21
    drawn = ids(decoded(level, [5], SamplingOptions(), 3, [16, 4, 1]))
    assert drawn == ids(decoded(level, [5], SamplingOptions(), 3, [1, 4, 16]))
    assert len(set(drawn)) > 10


@pytest.mark.parametrize("length", [1, 2, 17, 40])
def test_a_draw_is_decided_by_the_seed_and_the_position_in_the_whole_sequence(level, length):
    """With all logits equal, token p is the draw of fold_in(key(seed), p), the prompt's first token being 0."""
    seed = 2**40 + length
    drawn = ids(decoded(level, [7] * length, SamplingOptions(temperature=1.0), seed, [5]))
    key = jax.random.wrap_key_data(np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32))
    flat = jnp.zeros(256)
    expected = [jax.random.categorical(jax.random.fold_in(key, length + index), flat) for index in range(5)]
    assert drawn == [int(np.asarray(token)) for token in expected]


def test_a_piece_of_a_prompt_is_read_when_its_turn_ends():
    """Nothing is left running behind the engine's back: a prompt that is called off costs nothing more."""
    config = LSTMConfig(vocab_size=32, emb=8, hid=640, layers=1)
    programs = Programs(LSTM(config, LSTM.init_params(config, jax.random.key(0))))
    state = programs.read(np.ones((1, PIECES[0]), np.int32), programs.model.init_state(1))
    assert all(leaf.is_ready() for leaf in jax.tree.leaves(state))


def test_a_text_that_is_told_to_stand_still_does():
    """A count of 0 draws nothing and changes nothing, in whatever company."""
    config = LSTMConfig(vocab_size=32, emb=8, hid=16, layers=1)
    programs = Programs(LSTM(config, LSTM.init_params(config, jax.random.key(0))))
    size = batch_sizes(programs.model)[-1]
    texts = stacked([begun(programs.model, [1, 2, row]) for row in range(size)])
    samplers = stacked([Sampler.from_options(SamplingOptions(), row, 32) for row in range(size)])
    nothing = Forced(np.zeros((size, MAX_CHUNK), np.int32), np.zeros(size, np.int32))
    counts = np.asarray([row % 3 for row in range(size)], np.int32)
    drawn, after = programs.decode(texts, samplers, nothing, counts, wants_top=True)
    for before, now in zip(jax.tree.leaves(texts), jax.tree.leaves(after), strict=True):
        assert (np.asarray(now)[counts == 0] == before[counts == 0]).all()
    assert (np.asarray(after.position) == 2 + counts).all()
    assert (drawn.logprobs[counts == 2, :2] < 0).all()


@settings(max_examples=20)
@given(st.data(), some_options)
def test_the_end_of_a_prompt_may_be_read_within_the_batch(char_model, data, options):
    """Forced tokens lead to the state, and to the draws, that reading them before does."""
    programs, model = char_model.programs, char_model.programs.model
    prompt = data.draw(st.lists(st.integers(0, 31), min_size=2, max_size=MAX_CHUNK))
    read = data.draw(st.integers(1, len(prompt) - 1))
    sampler = stacked([Sampler.from_options(options, 5, 32)])
    forced = np.zeros((1, MAX_CHUNK), np.int32)
    forced[0, : len(prompt) - read] = prompt[read:]
    start = stacked([begun(model, prompt[:read])._replace(history=History.of_prompt(prompt, 32))])
    drawn, _ = programs.decode(
        start, sampler, Forced(forced, np.int32([len(prompt) - read])), np.int32([len(prompt) - read + 1]), False
    )
    assert drawn.ids[0, : len(prompt) - read].tolist() == prompt[read:]
    ((token,),) = [batch.ids for batch in decoded(programs, prompt, options, 5, [1])]
    assert drawn.ids[0, len(prompt) - read] == token


@pytest.mark.parametrize("length", [1, 5])
def test_logprobs_are_the_models_own(char_model, length):
    """By one pass of the model in float64 softmax; penalties and temperature leave them alone."""
    model = char_model.checkpoint.model
    prompt = np.random.default_rng(length).integers(0, model.config.vocab_size, length).tolist()
    options = SamplingOptions(temperature=0.3, repetition_penalty=2.0, logit_bias={4: 5.0})
    (drawn,) = decoded(char_model.programs, prompt, options, 9, [16], wants_top=True)
    logits = np.asarray(model.scan(jnp.asarray([prompt + drawn.ids]), model.init_state(1))[0][0], np.float64)
    expected = (logits - np.log(np.exp(logits).sum(-1, keepdims=True)))[length - 1 : -1]
    # float32 logits of order 1 through two orders of summation.
    np.testing.assert_allclose(drawn.logprobs, expected[np.arange(16), drawn.ids], atol=2e-5)
    np.testing.assert_allclose(drawn.top_logprobs, -np.sort(-expected)[:, :20], atol=2e-5)
    np.testing.assert_allclose(
        drawn.top_logprobs, np.take_along_axis(expected, np.array(drawn.top_ids), axis=1), atol=2e-5
    )


def test_alternatives_are_never_more_than_the_vocabulary():
    """Twenty are asked for at most; a vocabulary of five has five."""
    config = LSTMConfig(vocab_size=5, emb=4, hid=4, layers=1)
    small = Programs(LSTM(config, LSTM.init_params(config, jax.random.key(0))))
    (drawn,) = decoded(small, [1], SamplingOptions(), 0, [1], wants_top=True)
    assert sorted(drawn.top_ids[0]) == [0, 1, 2, 3, 4]


def test_the_programs_that_are_specified_are_the_ones_that_are_called(char_model, caplog):
    """Once every spec has been compiled, no request compiles anything: `Programs.prepare` is a complete warm-up."""
    specs = program_specs(char_model.programs.model)
    assert {f"decode-{size}" for size in batch_sizes(char_model.programs.model)} < specs.keys()
    assert list(Programs(char_model.programs.model).prepare()) == list(specs)
    programs, state = char_model.programs, char_model.programs.model.init_state(1)
    text = begun(programs.model, [1, 2])
    with jax.log_compiles():
        for length in PIECES:
            piece = np.ones((1, length), np.int32)
            after = programs.read(piece, state)
            programs.read_scored(piece, piece, jax.tree.map(np.asarray, after), True)
        for size in programs.batch_sizes:
            texts = stacked([text] * size)
            samplers = stacked([Sampler.from_options(SamplingOptions(top_p=0.5), 1, 32)] * size)
            nothing = Forced(np.zeros((size, MAX_CHUNK), np.int32), np.zeros(size, np.int32))
            for _ in range(2):
                _, texts = programs.decode(texts, samplers, nothing, np.full(size, 3, np.int32), wants_top=True)
        assert "Finished XLA compilation" not in caplog.text
        jax.jit(lambda x: x + 2)(np.float32(1))
        assert "Finished XLA compilation" in caplog.text


def test_only_what_is_prepared_is_waited_for(char_model):
    """While the larger batches are still being compiled, those who come together are served by the smaller."""
    programs = Programs(char_model.programs.model)
    assert programs.batch_sizes == batch_sizes(programs.model)[:1]
    preparing = programs.prepare()
    next(preparing)
    assert programs.batch_sizes == batch_sizes(programs.model)[:1]
    list(preparing)
    assert programs.batch_sizes == batch_sizes(programs.model)
