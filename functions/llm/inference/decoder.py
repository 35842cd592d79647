"""A model, a prompt and a sampler: tokens in chunks, a few compiled shapes for all requests.

Between two calls stands the state of everything read *before* the last token, and that token: the next call reads it
first. So reading the prompt needs no logits, the first token costs one step, and what is drawn last is never read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from functions.llm.array_types import Array, Float, Int
from functions.llm.inference.sampling import History, Sampler, next_token
from functions.llm.models import RecurrentLM, State

PREFILL_PIECES = (128, 16, 1)
"""A prompt is read in pieces of these lengths, so that three shapes serve prompts of every length."""

MAX_CHUNK = 16
"""How many tokens one dispatch makes at most."""

MAX_ALTERNATIVES = 20


class DecodeState(NamedTuple):
    """A text in the making: one leading batch axis in the model's state, none elsewhere."""

    model_state: State
    last_token: Int[Array, ""]
    position: Int[Array, ""]
    """Of the last token, which the model has not read yet."""
    history: History


class TokenBatch(NamedTuple):
    """N tokens in order, with log-probabilities by the model alone (no penalty, no temperature).

    Args:
        ids: the tokens.
        logprobs: their log-probabilities.
        top_ids: the likeliest alternatives at each place, likeliest first; K is 0 where nobody asked.
        top_logprobs: theirs.
    """

    ids: Int[Array, " N"]
    logprobs: Float[Array, " N"]
    top_ids: Int[Array, "N K"]
    top_logprobs: Float[Array, "N K"]


@dataclass(frozen=True)
class DecodedTokens:
    """A `TokenBatch` on the host, as Python's own numbers."""

    ids: list[int]
    logprobs: list[float]
    top_ids: list[list[int]]
    top_logprobs: list[list[float]]

    @classmethod
    def from_device(cls, batch: TokenBatch, count: int) -> Self:
        """Return the first ``count`` tokens of the batch, once the device has computed it."""
        # Whole arrays come over: indexing on the device would compile a gather for each shape.
        return cls(*(np.asarray(array)[:count].tolist() for array in batch))


class Decoder:
    """One text of one model."""

    def __init__(
        self, model: RecurrentLM, prompt: Sequence[int], sampler: Sampler, *, alternatives: bool = False
    ) -> None:
        """Begin after ``prompt``, of at least one token; ``alternatives`` asks for the likeliest tokens besides."""
        self._model = model
        self._prompt = np.asarray(prompt, np.int32)
        self._sampler = sampler
        self._top = min(MAX_ALTERNATIVES, model.config.vocab_size) if alternatives else 0
        self._model_state = model.init_state(1)
        self._state: DecodeState | None = None

    def prefill(self) -> Iterator[None]:
        """Read the prompt, in pieces: a pause after each lets others work."""
        for start, end in prefill_spans(len(self._prompt) - 1):
            self._model_state = _read(self._model, self._prompt[None, start:end], self._model_state)
            # JAX would let a whole prompt pile up behind the others' backs, and none of it could be called off.
            for leaf in jax.tree.leaves(self._model_state):
                leaf.block_until_ready()
            yield
        self._begin()

    def prefill_with_logprobs(self) -> Iterator[DecodedTokens]:
        """Read the prompt, and return the log-probabilities of its tokens from the second on."""
        for start, end in prefill_spans(len(self._prompt) - 1):
            batch, self._model_state = _read_with_logprobs(
                self._model,
                self._prompt[None, start:end],
                self._prompt[start + 1 : end + 1],
                self._model_state,
                top=self._top,
            )
            yield DecodedTokens.from_device(batch, end - start)
        self._begin()

    def decode(self, count: int) -> DecodedTokens:
        """Draw the next ``count`` tokens, 1 to MAX_CHUNK."""
        assert self._state is not None, "decode comes after the prefill has been exhausted"
        assert 1 <= count <= MAX_CHUNK, f"a chunk has 1 to {MAX_CHUNK} tokens, not {count}"
        batch, self._state = _decode(self._model, self._state, self._sampler, np.int32(count), top=self._top)
        return DecodedTokens.from_device(batch, count)

    def _begin(self) -> None:
        self._state = DecodeState(
            model_state=self._model_state,
            last_token=jnp.asarray(self._prompt[-1]),
            position=jnp.asarray(len(self._prompt) - 1, jnp.int32),
            history=History.of_prompt(self._prompt, self._model.config.vocab_size),
        )


def prefill_spans(length: int) -> Iterator[tuple[int, int]]:
    """Cut ``length`` tokens into spans of PREFILL_PIECES' lengths, the longest first."""
    start = 0
    for piece in PREFILL_PIECES:
        while length - start >= piece:
            yield start, start + piece
            start += piece


# The model travels as an argument (its parameters are leaves of a tree), so all models of one shape share what is
# compiled. State is not donated: a recurrent state is small, and whoever keeps one may fork it.


@jax.jit
def _read(model: RecurrentLM, tokens: Int[Array, "1 N"] | NDArray[np.int32], state: State) -> State:
    return model.scan(jnp.asarray(tokens), state)[1]


@partial(jax.jit, static_argnames=("top",))
def _read_with_logprobs(
    model: RecurrentLM,
    tokens: Int[Array, "1 N"] | NDArray[np.int32],
    following: Int[Array, " N"] | NDArray[np.int32],
    state: State,
    *,
    top: int,
) -> tuple[TokenBatch, State]:
    logits, state = model.scan(jnp.asarray(tokens), state)
    return jax.vmap(partial(_scored, top=top))(logits[0], jnp.asarray(following)), state


@partial(jax.jit, static_argnames=("top",))
def _decode(
    model: RecurrentLM, state: DecodeState, sampler: Sampler, count: Int[Array, ""] | np.int32, *, top: int
) -> tuple[TokenBatch, DecodeState]:
    """Draw ``count`` tokens; the batch has room for MAX_CHUNK, and zeros after them.

    The count is an argument, so one program makes chunks of every size, and a text cannot depend on its chunks.
    """

    def one(index: Int[Array, ""], carry: tuple[TokenBatch, DecodeState]) -> tuple[TokenBatch, DecodeState]:
        batch, state = carry
        logits, model_state = model.step(state.last_token[None], state.model_state)
        position = state.position + 1
        token, history = next_token(logits[0], sampler, state.history, position)
        scored = _scored(logits[0], token, top=top)
        batch = TokenBatch(*(column.at[index].set(value) for column, value in zip(batch, scored, strict=True)))
        return batch, DecodeState(model_state, token, position, history)

    empty = TokenBatch(
        ids=jnp.zeros(MAX_CHUNK, jnp.int32),
        logprobs=jnp.zeros(MAX_CHUNK, jnp.float32),
        top_ids=jnp.zeros((MAX_CHUNK, top), jnp.int32),
        top_logprobs=jnp.zeros((MAX_CHUNK, top), jnp.float32),
    )
    drawn: tuple[TokenBatch, DecodeState] = jax.lax.fori_loop(0, jnp.asarray(count), one, (empty, state))
    return drawn


def _scored(logits: Float[Array, " V"], token: Int[Array, ""], *, top: int) -> TokenBatch:
    logprobs = jax.nn.log_softmax(logits)
    top_logprobs, top_ids = jax.lax.top_k(logprobs, top)
    return TokenBatch(token, logprobs[token], top_ids, top_logprobs)
