"""Chunks and pieces: the same tokens however a text is cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.llm.inference.decoder import MAX_CHUNK, PREFILL_PIECES, DecodedTokens, Decoder, prefill_spans
from functions.llm.inference.sampling import Sampler, SamplingOptions
from functions.llm.models import LSTM, LSTMConfig


def decoded(model, prompt, options, seed, chunks, alternatives=False):
    decoder = Decoder(
        model, prompt, Sampler.from_options(options, seed, model.config.vocab_size), alternatives=alternatives
    )
    for _ in decoder.prefill():
        pass
    return [decoder.decode(count) for count in chunks]


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


@pytest.mark.parametrize("name", ["char_checkpoint", "byte_checkpoint"])
@settings(max_examples=20)
@given(first=cuts, second=cuts, options=some_options, seed=st.integers(0, 2**63 - 1))
def test_the_same_tokens_in_any_chunks(request, name, first, second, options, seed):
    """A text depends on the prompt, the options and the seed, never on the chunks it was made in."""
    model = request.getfixturevalue(name).model
    one = ids(decoded(model, [1, 2, 3], options, seed, first))
    other = ids(decoded(model, [1, 2, 3], options, seed, second))
    length = min(len(one), len(other))
    assert one[:length] == other[:length]


def test_exact_ties_go_to_the_lowest_id_in_any_chunks(byte_checkpoint):
    """With all logits equal a greedy text is token 0 for ever, and a drawn one is the same in any chunks."""
    model = byte_checkpoint.model
    level = LSTM(model.config, {name: jnp.zeros_like(array) for name, array in model.params.items()})
    assert ids(decoded(level, [5], SamplingOptions(temperature=0.0), 0, [1, 4, 16])) == [0] * 21
    drawn = ids(decoded(level, [5], SamplingOptions(), 3, [16, 4, 1]))
    assert drawn == ids(decoded(level, [5], SamplingOptions(), 3, [1, 4, 16]))
    assert len(set(drawn)) > 10


@given(st.integers(0, 2**63 - 1), st.integers(1, 40))
@settings(max_examples=20)
def test_a_draw_is_decided_by_the_seed_and_the_position_in_the_whole_sequence(byte_checkpoint, seed, length):
    """With all logits equal, token p is the draw of fold_in(key(seed), p), the prompt's first token being 0."""
    model = byte_checkpoint.model
    level = LSTM(model.config, {name: jnp.zeros_like(array) for name, array in model.params.items()})
    drawn = ids(decoded(level, [7] * length, SamplingOptions(temperature=1.0), seed, [5]))
    key = jax.random.wrap_key_data(np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32))
    flat = jnp.zeros(256)
    expected = [jax.random.categorical(jax.random.fold_in(key, length + index), flat) for index in range(5)]
    assert drawn == [int(np.asarray(token)) for token in expected]


@given(st.integers(0, 1000))
def test_spans_cover_the_prompt_in_few_shapes(length):
    """The spans follow each other from 0 to the end, each of a length that is compiled anyway."""
    spans = list(prefill_spans(length))
    assert [start for start, _ in spans] + [length] == [0] + [end for _, end in spans]
    assert {end - start for start, end in spans} <= set(PREFILL_PIECES)


def test_a_piece_of_a_prompt_is_read_when_its_turn_ends():
    """Nothing is left running behind the engine's back: a prompt that is called off costs nothing more."""
    config = LSTMConfig(vocab_size=32, emb=8, hid=640, layers=1)
    model = LSTM(config, LSTM.init_params(config, jax.random.key(0)))
    decoder = Decoder(model, [1] * (128 * 4 + 1), Sampler.from_options(SamplingOptions(), 0, 32))
    ready = [[leaf.is_ready() for leaf in jax.tree.leaves(decoder._model_state)] for _ in decoder.prefill()]
    assert ready == [[True, True]] * 4


@pytest.mark.parametrize("length", [1, 2, 17, 146])
def test_greedy_tokens_are_those_of_the_model_itself(char_checkpoint, length):
    """Prefill in pieces and decoding in chunks give what one pass over the growing text gives."""
    model = char_checkpoint.model
    prompt = np.random.default_rng(length).integers(0, model.config.vocab_size, length).tolist()
    text = list(prompt)
    scan = jax.jit(lambda tokens: model.scan(tokens, model.init_state(1))[0])
    for _ in range(5):
        # Padded to one length: later tokens never change earlier logits.
        padded = jnp.asarray([text + [0] * (160 - len(text))])
        text.append(int(np.argmax(np.asarray(scan(padded))[0, len(text) - 1])))
    assert ids(decoded(model, prompt, SamplingOptions(temperature=0.0), 0, [1, 4])) == text[length:]


@pytest.mark.parametrize("length", [2, 20, 150])
def test_logprobs_are_the_models_own(char_checkpoint, length):
    """Of prompt and output, by one pass of the model in float64 softmax; penalties and temperature leave them alone."""
    model = char_checkpoint.model
    prompt = np.random.default_rng(length).integers(0, model.config.vocab_size, length).tolist()
    options = SamplingOptions(temperature=0.3, repetition_penalty=2.0, logit_bias={4: 5.0})
    sampler = Sampler.from_options(options, 9, model.config.vocab_size)
    decoder = Decoder(model, prompt, sampler, alternatives=True)
    batches = [*decoder.prefill_with_logprobs(), decoder.decode(4)]
    tokens = ids(batches)
    assert tokens[: length - 1] == prompt[1:]

    logits = np.asarray(model.scan(jnp.asarray([prompt + tokens[length - 1 :]]), model.init_state(1))[0][0], np.float64)
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    joined = DecodedTokens(*([row for batch in batches for row in getattr(batch, name)] for name in
                             ("ids", "logprobs", "top_ids", "top_logprobs")))  # fmt: skip
    rows = np.arange(len(tokens))
    # float32 logits of order 1 through two orders of summation.
    np.testing.assert_allclose(joined.logprobs, expected[rows, tokens], atol=2e-5)
    np.testing.assert_allclose(joined.top_logprobs, -np.sort(-expected[:-1])[:, :20], atol=2e-5)
    np.testing.assert_allclose(
        joined.top_logprobs, np.take_along_axis(expected[:-1], np.array(joined.top_ids), axis=1), atol=2e-5
    )
    assert np.all(np.diff(joined.top_logprobs, axis=1) <= 0)


def test_alternatives_are_never_more_than_the_vocabulary(char_checkpoint):
    """Twenty are asked for at most; a vocabulary of five has five."""
    config = type(char_checkpoint.model.config)(vocab_size=5, width=4, hidden=4, layers=1)
    family = type(char_checkpoint.model)
    small = family(config, family.init_params(config, jax.random.key(0)))
    (batch,) = decoded(small, [1], SamplingOptions(), 0, [1], alternatives=True)
    assert sorted(batch.top_ids[0]) == [0, 1, 2, 3, 4]
