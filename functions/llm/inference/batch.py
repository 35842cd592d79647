"""The texts of one model that are written at the same time.

A text first reads its prompt in pieces, alone; the few tokens that no piece fits it reads as `Forced` tokens among the
others; then it draws. Between two calls stands the state of everything read *before* the last token, and that token:
so reading a prompt needs no logits, and what is drawn last is never read.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from functions.llm.array_types import on_host
from functions.llm.inference.generation import Event, Generation
from functions.llm.inference.programs import (
    MAX_CHUNK,
    PIECES,
    DecodeState,
    Forced,
    Programs,
    TokenBatch,
    in_company,
    nothing_forced,
    stacked,
)
from functions.llm.inference.prompt_cache import PromptCache
from functions.llm.inference.sampling import History
from functions.llm.inference.served_model import ServedModel
from functions.llm.inference.transcript import Transcript

# The first token goes out alone, the next few come soon, and then one dispatch serves as many as it can.
SECOND_CHUNK = 4
# While somebody else's prompt is being read, so that the one is not kept waiting for the others' whole chunks.
HURRIED_CHUNK = 4


class Text:
    """One text: its prompt as far as it was read, and what was said after it."""

    def __init__(self, generation: Generation, cache: PromptCache) -> None:
        self.generation = generation
        self.transcript = Transcript(generation)
        # Weights that are still being verified may be damaged, and what they leave would outlive them.
        self._cache = cache if generation.model.checkpoint.verified else PromptCache(0)
        self.place: tuple[_Stack, int] | None = None
        """Where the state is once this text is decoded: a stack, and the row."""
        self.step_seconds = 0.0
        """How long each step took of the dispatch that this text was last in."""
        self._read = 0
        self._chunks = 0
        self._scored = generation.request.echo and generation.request.logprobs is not None
        self._state: Any = None
        cuts = spans(len(generation.prompt) - 1)
        # Scores of the prompt's tokens come only of reading them.
        if cuts and not self._scored:
            ends = [end for _, end in cuts]
            self._read, self._state = self._cache.longest(generation.model.digest, generation.prompt, ends)
            self.transcript.cached_prompt_tokens = self._read
        if self._state is None:
            self._state = jax.tree.map(np.asarray, generation.model.programs.model.init_state(1))
        self._spans = deque(span for span in cuts if span[0] >= self._read)

    @property
    def has_pieces(self) -> bool:
        """Whether a piece of the prompt must be read before this text can join the others."""
        return bool(self._spans)

    @property
    def wants_top(self) -> bool:
        """Whether likeliest alternatives were asked for."""
        return bool(self.generation.request.logprobs)

    @property
    def prompt_tokens_read(self) -> int:
        """How much of the prompt the model has read, or need not read any more."""
        return self._read + (self._chunks > 0)

    @property
    def finished(self) -> bool:
        """Whether `Done` has been said."""
        return self.transcript.finished

    def begin(self) -> list[Event]:
        """Return what an echo says before anything is read: the first token, and what the cache has read."""
        return [*self.transcript.begin(), *self.transcript.echo(1, self._read + 1, None)]

    def read_piece(self) -> list[Event]:
        """Read the next piece of the prompt, and return its echo."""
        programs, prompt = self.generation.model.programs, self.generation.prompt
        start, end = self._spans.popleft()
        tokens = np.asarray([prompt[start:end]], np.int32)
        scored, began = None, time.process_time()
        if self._scored:
            following = np.asarray([prompt[start + 1 : end + 1]], np.int32)
            scored, self._state = programs.read_scored(tokens, following, self._state, self.wants_top)
        else:
            self._state = programs.read(tokens, self._state)
        self.spend(time.process_time() - began)
        self._read = end
        self._cache.keep(self.generation.model.digest, prompt[:end], self._state)
        return self.transcript.echo(start + 1, end + 1, scored)

    def spend(self, cpu_seconds: float) -> None:
        """Count the time of the CPU that this text took."""
        self.transcript.cpu_seconds += cpu_seconds

    def decode_state(self) -> DecodeState:
        """Return where decoding stands, or begins: no batch axis, on the host."""
        if self.place is not None:
            stack, row = self.place
            return stack.row(row)
        state, self._state = self._state, None
        return DecodeState(
            model_state=jax.tree.map(lambda array: np.asarray(array)[0], state),
            last_token=on_host(self.generation.prompt[self._read], np.int32),
            position=on_host(self._read, np.int32),
            history=History.of_prompt(self.generation.prompt, self.generation.model.tokenizer.vocab_size),
        )

    @property
    def left_of_the_prompt(self) -> tuple[int, ...]:
        """The prompt's tokens after the last one read."""
        return self.generation.prompt[self._read + 1 :]

    def pace(self, chunk: int) -> int:
        """Return how many tokens this text should read or draw in the next dispatch, if ``chunk`` is usual."""
        return len(self.left_of_the_prompt) + {0: 1, 1: SECOND_CHUNK}.get(self._chunks, chunk)

    @property
    def missing(self) -> int:
        """How many tokens there are to read or draw until the text is as long as it may be."""
        drawn = self.transcript.completion_tokens
        return len(self.left_of_the_prompt) + self.generation.request.max_tokens - drawn

    @property
    def waits_for_its_first(self) -> bool:
        """Whether nothing has been drawn yet."""
        return self._chunks == 0

    def take(self, drawn: TokenBatch, row: int, count: int) -> list[Event]:
        """Return the events of ``count`` more tokens: the prompt's that were left, then drawn ones."""
        forced = min(len(self.left_of_the_prompt), count)
        events = self.transcript.echo(self._read + 1, self._read + 1 + forced, drawn if self._scored else None, row)
        self._read += forced
        if count > forced:
            self._chunks += 1
            events += self.transcript.generated(drawn, row, forced, count)
        return events


class Batch:
    """The texts of one model: those that read their prompts, and those that are decoded together."""

    def __init__(self, model: ServedModel, cache: PromptCache) -> None:
        self._programs = model.programs
        self._cache = cache
        self._reading: deque[Text] = deque()
        self._decoding: list[Text] = []
        self._stacks: list[_Stack] = []

    def __len__(self) -> int:
        return len(self._reading) + len(self._decoding)

    def join(self, generation: Generation) -> tuple[Text, list[Event]]:
        """Return the new text, and what it says at once."""
        text = Text(generation, self._cache)
        events = text.begin()
        self._reading.append(text)
        return text, events

    def leave(self, text: Text) -> None:
        """Forget a text; it takes no part in the next dispatch."""
        for texts in (self._reading, self._decoding):
            if text in texts:
                texts.remove(text)

    def advance(self, *, hurried: bool) -> Iterator[tuple[Text, list[Event] | Exception]]:
        """Read one piece of one prompt, then let every decoded text take its chunk; yield what that brought.

        Args:
            hurried: whether somebody waits for the end of this dispatch, so that it should be a short one.
        """
        if (text := next((text for text in self._reading if text.has_pieces), None)) is not None:
            # To the end of the line: two long prompts are read in turn.
            self._reading.remove(text)
            self._reading.append(text)
            yield text, _events(text.read_piece)
        for text in [text for text in self._reading if not text.has_pieces]:
            self._reading.remove(text)
            self._decoding.append(text)
        chunk = HURRIED_CHUNK if hurried or self._reading else MAX_CHUNK
        sizes = self._programs.batch_sizes
        companies = [self._decoding[start : start + sizes[-1]] for start in range(0, len(self._decoding), sizes[-1])]
        self._stacks = [*self._stacks, *(_Stack() for _ in companies)][: len(companies)]
        # All are read before any is written: a text may move from one stack to another.
        moved = [
            (stack, company, [text.decode_state() for text in company])
            for stack, company in zip(self._stacks, companies, strict=True)
            if company != stack.texts
        ]
        for stack, company, rows in moved:
            stack.arrange(company, rows, next(size for size in sizes if size >= len(company)))
        for stack in self._stacks:
            yield from stack.decode(self._programs, chunk)


class _Stack:
    """The state of as many texts as one dispatch takes, a row each; it stays on the device while they stay."""

    def __init__(self) -> None:
        self.texts: list[Text] = []
        self._state: DecodeState | None = None
        self._samplers: Any = None
        self._nothing_forced: Any = None
        self._size = 0

    def decode(self, programs: Programs, chunk: int) -> list[tuple[Text, list[Event] | Exception]]:
        """Advance every text, and return what that brought to each."""
        texts = self.texts
        # The CPU's of the whole process: most of the work is done by the threads of XLA and of the kernel.
        began, cpu_began = time.perf_counter(), time.process_time()
        try:
            counts = self._counts(chunk, in_company(programs.model))
            wants_top = any(text.wants_top for text in texts)
            assert self._state is not None
            drawn, self._state = programs.decode(self._state, self._samplers, self._forced(), counts, wants_top)
        except Exception as error:  # noqa: BLE001 - whatever it was, all who took part have to hear of it
            return [(text, error) for text in texts]
        share = (time.process_time() - cpu_began) / len(texts)
        step_seconds = (time.perf_counter() - began) / max(1, *counts.tolist())
        for text in texts:
            text.spend(share)
            text.step_seconds = step_seconds
        return [
            (text, _events(partial(text.take, drawn, row, count)))
            for row, (text, count) in enumerate(zip(texts, counts.tolist(), strict=False))
        ]

    def row(self, index: int) -> DecodeState:
        """Return where one text stands: no batch axis, on the host."""
        state: DecodeState = jax.tree.map(lambda array: np.asarray(array)[index], self._state)
        return state

    def arrange(self, texts: list[Text], rows: list[DecodeState], size: int) -> None:
        """Take ``texts``, which stand at ``rows``, and fill up to ``size``."""
        # Rows that only fill the batch up are told to make no token.
        filling = size - len(texts)
        samplers = [text.generation.sampler for text in texts]
        self._state = stacked([*rows, *rows[:1] * filling])
        # On the device from here on: to take an array over at every dispatch costs as long as drawing a token.
        self._samplers = jax.device_put(stacked([*samplers, *samplers[:1] * filling]))
        self._nothing_forced = jax.device_put(nothing_forced(size))
        self.texts, self._size = texts, size
        for index, text in enumerate(texts):
            text.place = self, index

    def _counts(self, chunk: int, together: bool) -> NDArray[np.int32]:
        paces = [text.pace(chunk) for text in self.texts]
        # Nobody's first token waits for the end of the others' long chunks.
        firsts = [pace for text, pace in zip(self.texts, paces, strict=True) if text.waits_for_its_first]
        if together:
            # All take as many steps as there are: who stood still would wait as long, and have less.
            steps = max(firsts, default=min(paces))
            wanted = [min(steps, text.missing) for text in self.texts]
        else:
            steps = max(firsts, default=MAX_CHUNK)
            wanted = [min(pace, steps, text.missing) for pace, text in zip(paces, self.texts, strict=True)]
        counts = np.zeros(self._size, np.int32)
        counts[: len(wanted)] = wanted
        return counts

    def _forced(self) -> Forced:
        if not any(text.left_of_the_prompt for text in self.texts):
            nothing: Forced = self._nothing_forced
            return nothing
        tokens, lengths = np.zeros((self._size, MAX_CHUNK), np.int32), np.zeros(self._size, np.int32)
        for row, text in enumerate(self.texts):
            left = text.left_of_the_prompt
            tokens[row, : len(left)] = left
            lengths[row] = len(left)
        return Forced(on_host(tokens, np.int32), on_host(lengths, np.int32))


def generate(generation: Generation) -> Iterator[list[Event]]:
    """Answer a request alone, without an engine: the events as they come, `Done` last."""
    batch = Batch(generation.model, PromptCache(0))
    text, events = batch.join(generation)
    yield events
    while not text.finished:
        for _, made in batch.advance(hurried=False):
            if isinstance(made, Exception):
                raise made
            yield made


def spans(length: int) -> list[tuple[int, int]]:
    """Cut the first ``length`` tokens into spans of PIECES' lengths, the longest first; the rest fits no piece."""
    cuts, start = [], 0
    for piece in PIECES:
        while length - start >= piece:
            cuts.append((start, start + piece))
            start += piece
    return cuts


def _events(make: Callable[[], list[Event]]) -> list[Event] | Exception:
    try:
        return make()
    except Exception as error:  # noqa: BLE001 - one text that fails must not take the others with it
        return error
