"""One law: a request and its seed decide the text. Not the company, not the chunks, not the cache, not the process."""

import json
import subprocess
import sys
import time
from dataclasses import replace

import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.llm.inference.batch import Batch, generate, spans
from functions.llm.inference.generation import Generation, GenerationRequest, Token
from functions.llm.inference.programs import BATCH_SIZES, PIECES, Programs
from functions.llm.inference.prompt_cache import PromptCache
from functions.llm.inference.sampling import SamplingOptions
from functions.llm.inference.served_model import ServedModel
from functions.llm.models import MinGRU

some_sampling = st.sampled_from(
    [
        SamplingOptions(temperature=0.0),
        SamplingOptions(temperature=1.0),
        SamplingOptions(temperature=0.9, top_k=9, top_p=0.9, min_p=0.02),
        SamplingOptions(repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=0.4, penalty_decay=0.9),
    ]
)
# Prompts share their beginnings, so that the cache has something to give.
SHARED = tuple(index * 7 % 32 for index in range(300))
some_prompts = st.builds(
    lambda shared, own: (*SHARED[:shared], *own),
    st.sampled_from([0, 3, 15, 16, 17, 40, 128, 150, 300]),
    st.lists(st.integers(0, 31), min_size=1, max_size=20).map(tuple),
)
some_requests = st.builds(
    GenerationRequest,
    prompt=some_prompts,
    max_tokens=st.integers(1, 40),
    sampling=some_sampling,
    seed=st.integers(0, 3),
    stop_token_ids=st.sampled_from([frozenset(), frozenset({3, 4})]),
    logprobs=st.sampled_from([None, None, 0, 3]),
    echo=st.booleans(),
)


def together(model, asked, cache, joining, hurried):
    """What each of ``asked`` is told when they share a batch, the n-th joining after ``joining[n]`` dispatches."""
    batch, texts, told = Batch(model, cache), {}, [[] for _ in asked]
    dispatch = 0
    while len(texts) < len(asked) or not all(text.finished for text in texts.values()):
        for index, request in enumerate(asked):
            if index not in texts and joining[index] <= dispatch:
                texts[index], events = batch.join(Generation(model, request))
                told[index] += events
        for text, events in batch.advance(hurried=hurried[dispatch % len(hurried)]):
            assert not isinstance(events, Exception), events
            told[next(index for index in texts if texts[index] is text)] += events
            if text.finished:
                batch.leave(text)
        dispatch += 1
    assert len(batch) == 0
    return told


def alone(model, request):
    return [event for events in generate(Generation(model, request)) for event in events]


@pytest.fixture(scope="module", params=["served", "xla"])
def model(request, char_model):
    """As it is served here, perhaps by the native kernel, and by XLA alone."""
    checkpoint = char_model.checkpoint
    return char_model if request.param == "served" else prepared(ServedModel(checkpoint, Programs(checkpoint.model)))


def prepared(model):
    """The model with all its programs compiled, so that every size of batch is used."""
    assert list(model.programs.prepare())
    return model


@settings(max_examples=40, deadline=None)
@given(st.lists(some_requests, min_size=1, max_size=16), st.data())
def test_a_text_is_the_same_alone_and_in_company(model, asked, data):
    """To the last digit of every log-probability, whoever joins when, in chunks of every size, cache warm or cold."""
    joining = data.draw(st.lists(st.integers(0, 6), min_size=len(asked), max_size=len(asked)))
    hurried = data.draw(st.lists(st.booleans(), min_size=1, max_size=4))
    cache = PromptCache(data.draw(st.sampled_from([0, 5_000, 1 << 20])))
    expected = [alone(model, request) for request in asked]
    assert together(model, asked, cache, joining, hurried) == expected
    # Again, with whatever the first time has left in the cache.
    assert together(model, asked, cache, [0] * len(asked), [False]) == expected


def test_more_texts_than_a_dispatch_takes_are_taken_in_turns(model):
    """Seventeen and more in one batch: the same again."""
    asked = [GenerationRequest((1, seed), 20, SamplingOptions(), seed) for seed in range(BATCH_SIZES[-1] + 3)]
    expected = [alone(model, request) for request in asked]
    assert together(model, asked, PromptCache(0), [seed % 3 for seed in range(len(asked))], [False, True]) == expected


def test_batches_that_are_still_being_prepared_disturb_nobody(model):
    """A server begins with one size of batch and gains the others while texts are being written."""
    asked = [GenerationRequest((1, seed), 60, SamplingOptions(), seed) for seed in range(5)]
    expected = [alone(model, request) for request in asked]
    starting = ServedModel(model.checkpoint, Programs(model.programs.model))
    preparing = starting.programs.prepare()
    batch, told = Batch(starting, PromptCache(0)), [[] for _ in asked]
    texts = [batch.join(Generation(starting, request))[0] for request in asked]
    while not all(text.finished for text in texts):
        for text, events in batch.advance(hurried=True):
            assert not isinstance(events, Exception), events
            told[texts.index(text)] += events
            if text.finished:
                batch.leave(text)
        next(preparing, None)
    assert told == expected


def test_an_answer_says_what_it_took(char_model):
    """What was cached of its prompt, and its share of the CPU: the shares are together what the process spent."""
    cache, asked = PromptCache(1 << 20), GenerationRequest(SHARED[:40], 8, SamplingOptions(), seed=0)
    (cold,) = together(char_model, [asked], cache, [0], [False])
    assert cold[-1].cached_prompt_tokens == 0
    began = time.process_time()
    told = together(char_model, [asked] * 3, cache, [0] * 3, [False])
    spent = time.process_time() - began
    assert [events[-1].cached_prompt_tokens for events in told] == [spans(39)[-1][1]] * 3
    shares = [events[-1].cpu_seconds for events in told]
    assert min(shares) > 0
    assert sum(shares) <= spent


def test_weights_that_are_not_verified_leave_nothing_in_the_cache(char_model):
    """Should they prove damaged, their states must not outlive them under the digest that they claimed."""
    sizes = []

    class Watcher:
        def prompt_looked_up(self, cached_tokens):
            sizes.append(cached_tokens)

        def prompt_cache_changed(self, size_bytes, states):
            sizes.append(size_bytes)

    class Unverified:
        verified = False

        def __getattr__(self, name):
            return getattr(char_model.checkpoint, name)

    unverified = ServedModel(Unverified(), char_model.programs)
    asked = GenerationRequest(SHARED, 2, SamplingOptions(), 0)
    told = together(unverified, [asked], PromptCache(1 << 20, Watcher()), [0], [False])
    assert told == [alone(char_model, asked)]
    assert sizes == []


def test_ties_are_the_same_in_company(model):
    """All logits equal: greedy is token 0 for ever, and what is drawn depends on the seed alone."""
    family = model.checkpoint.model
    level = MinGRU(family.config, {name: jnp.zeros_like(array) for name, array in family.params.items()})
    flat = replace(model.checkpoint, model=level)
    served = prepared(ServedModel.of(flat))
    asked = [
        GenerationRequest((1, 2), 20, SamplingOptions(temperature=float(seed % 2)), seed, logprobs=2)
        for seed in range(16)
    ]
    told = together(served, asked, PromptCache(0), [0] * 16, [False])
    assert told == [alone(served, request) for request in asked]
    assert {event.id for events in told[::2] for event in events[:-1]} == {0}
    assert len({event.id for event in told[1][:-1]}) > 5


def test_a_text_is_the_same_in_another_process(checkpoints_folder, char_model):
    """After a restart a request has the answer it had before."""
    command = [sys.executable, "-m", "functions.llm.cli", "generate", "--ckpt", str(checkpoints_folder / "tiny-char")]
    command += ["--seed", "the raven", "--chars", "60", "--random-seed", "5", "--temp", "1.1", "--json"]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout)
    asked = GenerationRequest("the raven", 60, SamplingOptions(temperature=1.1), 5)
    told = together(char_model, [asked] * 5, PromptCache(1 << 20), [0, 1, 2, 3, 4], [True])
    assert all("".join(event.text for event in events[:-1]) == answer["text"] for events in told)


def test_a_shared_beginning_is_read_once(char_model):
    """The second prompt of 300 and some tokens reads only its own end; without room it reads everything."""

    class Watcher:
        def __init__(self):
            self.cached, self.sizes = [], []

        def prompt_looked_up(self, cached_tokens):
            self.cached.append(cached_tokens)

        def prompt_cache_changed(self, size_bytes, states):
            self.sizes.append((size_bytes, states))

    watcher = Watcher()
    cache = PromptCache(1 << 20, watcher)
    for own in (1, 2):
        asked = GenerationRequest((*SHARED[:300], own), 2, SamplingOptions(), 0)
        together(char_model, [asked], cache, [0], [False])
    # 300 = 128 + 128 + 16 + 16 + 12: the last twelve fit no piece.
    assert watcher.cached == [0, 288]
    assert watcher.sizes[-1][1] == 4


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 127, 128, 129, 300, 1000])
def test_spans_leave_less_than_a_piece(length):
    """The spans follow each other from 0 on, each of a length that is compiled, the longest first."""
    cuts = spans(length)
    assert [start for start, _ in cuts] == [0, *(end for _, end in cuts)][: len(cuts)]
    assert [end - start for start, end in cuts] == sorted((end - start for start, end in cuts), reverse=True)
    assert {end - start for start, end in cuts} <= set(PIECES)
    assert length - (cuts[-1][1] if cuts else 0) < PIECES[-1]


def test_a_long_prompt_stalls_nobody_by_more_than_a_piece(char_model):
    """While 600 tokens are read, whoever is being decoded gets tokens between any two pieces."""
    batch = Batch(char_model, PromptCache(0))
    first, _ = batch.join(Generation(char_model, GenerationRequest((1, 2), 4000, SamplingOptions(), 0)))
    list(batch.advance(hurried=False))
    long, _ = batch.join(Generation(char_model, GenerationRequest(SHARED * 2, 4, SamplingOptions(), 0)))
    advances = 0
    while long.has_pieces:
        made = dict(batch.advance(hurried=False))
        assert any(isinstance(event, Token) for event in made[first])
        advances += 1
    assert advances == len(spans(599))


def test_a_short_prompt_overtakes_a_long_one(char_model):
    """Its first token does not wait until the other's prompt is read."""
    batch = Batch(char_model, PromptCache(0))
    long, _ = batch.join(Generation(char_model, GenerationRequest(SHARED * 3, 4, SamplingOptions(), 0)))
    short, _ = batch.join(Generation(char_model, GenerationRequest((1, 2, 3), 4, SamplingOptions(), 0)))
    made = dict(batch.advance(hurried=False))
    assert [event.position for event in made[short]] == [3]
    assert long.has_pieces


def test_the_first_token_comes_alone_and_the_others_in_growing_chunks(char_model):
    """Nobody who has just come waits for a whole chunk, in company neither."""
    batch = Batch(char_model, PromptCache(0))
    texts = []
    for _ in range(2):
        text, _ = batch.join(Generation(char_model, GenerationRequest((1, 2), 60, SamplingOptions(), 0)))
        texts.append(text)
        counts = [len(dict(batch.advance(hurried=False))[text]) for _ in range(4)]
        assert counts == [1, 4, 16, 16]


def test_a_first_token_does_not_wait_for_the_others_chunks(char_model):
    """The dispatch that makes it ends with it: the others make no more tokens meanwhile than the newcomer reads."""
    batch = Batch(char_model, PromptCache(0))
    running, _ = batch.join(Generation(char_model, GenerationRequest((1, 2), 200, SamplingOptions(), 0)))
    for _ in range(4):
        usual = len(dict(batch.advance(hurried=False))[running])
    newcomer, _ = batch.join(Generation(char_model, GenerationRequest((1, 2, 3, 4), 200, SamplingOptions(), 0)))
    made = dict(batch.advance(hurried=False))
    assert (len(made[newcomer]), len(made[running]), usual) == (1, 4, 16)


@pytest.mark.parametrize(("together", "count"), [(True, 16), (False, 4)])
def test_texts_that_are_decoded_together_take_every_step(char_model, monkeypatch, together, count):
    """A newcomer's prompt makes a long dispatch: who stood still in it would wait as long, and have less.

    Where rows take turns, it is the others' tokens that would make it longer.
    """
    monkeypatch.setattr("functions.llm.inference.batch.in_company", lambda model: together)
    batch = Batch(char_model, PromptCache(0))
    running, _ = batch.join(Generation(char_model, GenerationRequest((1, 2), 200, SamplingOptions(), 0)))
    for _ in range(4):
        dict(batch.advance(hurried=False))
    newcomer, _ = batch.join(Generation(char_model, GenerationRequest((1,) * 16, 200, SamplingOptions(), 0)))
    made = dict(batch.advance(hurried=True))
    assert (len(made[newcomer]), len(made[running])) == (1, count)


def test_one_text_with_broken_numbers_hurts_no_other(char_model):
    """It alone gets the error; the others, in the same dispatch, their tokens."""
    family = char_model.checkpoint.model
    broken = family.params["embedding"].at[9].set(jnp.nan)
    model = ServedModel.of(
        replace(char_model.checkpoint, model=MinGRU(family.config, dict(family.params) | {"embedding": broken}))
    )
    prepared(model)
    batch = Batch(model, PromptCache(0))
    greedy = SamplingOptions(temperature=0.0, logit_bias={9: -100.0})
    bad, _ = batch.join(Generation(model, GenerationRequest((1, 9), 4, greedy, 0)))
    good, _ = batch.join(Generation(model, GenerationRequest((1, 2), 4, greedy, 0)))
    made = dict(batch.advance(hurried=False))
    assert isinstance(made[bad], FloatingPointError)
    assert len(made[good]) == 1
