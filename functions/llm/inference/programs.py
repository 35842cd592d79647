"""What serving asks of a model, compiled: a prompt's pieces, and chunks of tokens for several texts at once.

A text's tokens depend on nothing but its own request: not on the texts beside it, not on where it is cut. So a row's
bits must not depend on the rows around it, and XLA's products of one row and of several differ in the last bits.
Hence three ways to decode, chosen by the model and the device, see `in_company`:

- The native kernel makes all rows' chunks in one call of steps and draws; its rows are independent by construction.
- Any other on a CPU takes its rows one after the other, each by the same program as alone.
- Any other elsewhere always decodes the largest batch, so that there is one shape only.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from functions.llm.array_types import Array, Float, Int, on_host
from functions.llm.inference.sampling import History, Sampler, SamplingOptions, next_token
from functions.llm.models import RecurrentLM, State
from functions.llm.native.accelerated import NativeModel

PIECES = (128, 16)
"""A prompt is read in pieces of these lengths, the longest first; what is left joins the batch as `Forced` tokens."""

MAX_CHUNK = 16
"""How many tokens of each text one dispatch reads or makes at most."""

BATCH_SIZES = (1, 2, 4, 8, 16)
"""A batch is filled up to one of these, so that few shapes serve every number of texts."""

MAX_ALTERNATIVES = 20

FIRST_PROGRAMS = 1 + len(PIECES)
"""How many of `program_specs`, from the first, a plain request needs that is alone; with one more it has company."""


class DecodeState(NamedTuple):
    """B texts in the making.

    Args:
        model_state: the model's memory of everything before the last token.
        last_token: which the model has not read yet.
        position: of the last token.
        history: what the penalties remember.
    """

    model_state: State
    last_token: Int[Array, " B"]
    position: Int[Array, " B"]
    history: History


class Forced(NamedTuple):
    """The end of a prompt, read within the batch: tokens that follow the last one without being drawn.

    Args:
        tokens: of which the first ``length`` count.
        length: how many, 0 to MAX_CHUNK - 1.
    """

    tokens: Int[Array, "B N"]
    length: Int[Array, " B"]


class TokenBatch(NamedTuple):
    """N tokens of each text in order, with log-probabilities by the model alone (no penalty, no temperature).

    Args:
        ids: the tokens.
        logprobs: their log-probabilities.
        top_ids: the K likeliest tokens at each place, likeliest first; zeros unless they were asked for.
        top_logprobs: theirs.
    """

    ids: Int[Array, "B N"]
    logprobs: Float[Array, "B N"]
    top_ids: Int[Array, "B N K"]
    top_logprobs: Float[Array, "B N K"]


@dataclass(frozen=True)
class ProgramSpec:
    """A function to compile, and arguments of the shapes and types that it is called with.

    Args:
        function: made by ``jax.jit``.
        args: examples; their values do not matter.
    """

    function: Any
    args: tuple[Any, ...]


class Programs:
    """The compiled functions of one model."""

    def __init__(self, model: RecurrentLM, compiled: Mapping[str, Callable[..., Any]] | None = None) -> None:
        """Serve ``model`` by the executables in ``compiled``, by name; what is missing there is compiled at its use."""
        self.model = model
        self._functions: dict[str, Callable[..., Any]] = {**program_functions(model), **(compiled or {})}
        self._without_compiling = frozenset(compiled or ())
        self._prepared: set[str] = set()

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The batches that can be decoded at once, smallest first: for which nothing is to be compiled, or the first.

        More come as they are prepared, and none goes.
        """
        sizes, at_hand = batch_sizes(self.model), self._without_compiling | self._prepared
        return tuple(size for size in sizes if f"decode-{size}" in at_hand) or sizes[:1]

    @property
    def at_hand(self) -> bool:
        """Whether every program was compiled ahead, so that nobody ever waits for the compiler."""
        return self._without_compiling >= self._functions.keys()

    def prepare(self) -> Iterator[str]:
        """Load or compile one program after the other, those that a first request meets first; yield each's name."""
        for name, spec in program_specs(self.model).items():
            if name not in self._prepared:
                jax.block_until_ready(self._functions[name](*spec.args))  # type: ignore[no-untyped-call]
                self._prepared.add(name)
            yield name

    def read(self, tokens: NDArray[np.int32], state: State) -> State:
        """Return the state of one text after a piece, tokens (1, N), once the device has computed it."""
        state = self._functions[f"read-{tokens.shape[1]}"](self.model, tokens, state)
        # JAX would let a whole prompt pile up behind the others' backs, and none of it could be called off.
        return jax.block_until_ready(state)  # type: ignore[no-untyped-call]

    def read_scored(
        self, tokens: NDArray[np.int32], following: NDArray[np.int32], state: State, wants_top: bool
    ) -> tuple[TokenBatch, State]:
        """Return how likely ``following``, (1, N), was after each token of a piece, and the state after the piece."""
        name = f"read_scored-{tokens.shape[1]}"
        scored, state = self._functions[name](self.model, tokens, following, state, np.bool_(wants_top))
        return _on_host(scored), state

    def decode(
        self, texts: DecodeState, samplers: Sampler, forced: Forced, counts: NDArray[np.int32], wants_top: bool
    ) -> tuple[TokenBatch, DecodeState]:
        """Advance each of B texts, one of `batch_sizes`, by its own count of tokens, 0 to MAX_CHUNK."""
        name = f"decode-{len(counts)}"
        drawn, texts = self._functions[name](self.model, texts, samplers, forced, counts, np.bool_(wants_top))
        return _on_host(drawn), texts


def nothing_forced(size: int) -> Forced:
    """Return that a batch of ``size`` has read its prompts."""
    return Forced(on_host(np.zeros((size, MAX_CHUNK)), np.int32), on_host(np.zeros(size), np.int32))


def program_specs(model: RecurrentLM) -> dict[str, ProgramSpec]:
    """Return every program that serving ``model`` may call, by name, those that a first request meets first."""
    functions = program_functions(model)
    one = jax.tree.map(np.asarray, model.init_state(1))
    alone = jax.tree.map(lambda array: array[0], one)
    flag = np.bool_(False)

    def piece(name: str) -> NDArray[np.int32]:
        return np.zeros((1, int(name.partition("-")[2])), np.int32)

    def args(name: str) -> tuple[Any, ...]:
        match name.partition("-")[0]:
            case "read":
                return model, piece(name), one
            case "read_scored":
                return model, piece(name), piece(name), one, flag
            case _:
                vocabulary, zero = model.config.vocab_size, on_host(0, np.int32)
                text = DecodeState(alone, zero, zero, History.of_prompt((), vocabulary))
                sampler = Sampler.from_options(SamplingOptions(), 0, vocabulary)
                row = (text, sampler, Forced(on_host([0] * MAX_CHUNK, np.int32), zero), zero)
                return model, *stacked([row] * int(name.partition("-")[2])), flag

    return {name: ProgramSpec(functions[name], args(name)) for name in functions}


def batch_sizes(model: RecurrentLM) -> tuple[int, ...]:
    """Return the batches that ``model`` is compiled for, smallest first."""
    if in_company(model):
        return BATCH_SIZES if model.rows_are_independent else BATCH_SIZES[-1:]
    # Rows take turns, and a row with nothing to do costs nothing: one shape is enough for all companies.
    return BATCH_SIZES[0], BATCH_SIZES[-1]


def in_company(model: RecurrentLM) -> bool:
    """Return whether the rows of a batch are decoded together, rather than one after the other."""
    return model.rows_are_independent or jax.default_backend() != "cpu"


def program_functions(model: RecurrentLM) -> dict[str, Any]:
    """Return the jitted function of every program, by name, those that a first request meets first."""
    if isinstance(model, NativeModel):
        decode: Any = _decode_natively
    else:
        decode = _decode_together if in_company(model) else _decode_in_turn
    smallest, *larger = batch_sizes(model)
    return (
        {f"decode-{smallest}": decode}
        | {f"read-{length}": _read for length in reversed(PIECES)}
        # The largest next: every company fits into it.
        | {f"decode-{size}": decode for size in reversed(larger)}
        | {f"read_scored-{length}": _read_scored for length in reversed(PIECES)}
    )


# The model travels as an argument (its parameters are leaves of a tree), so all models of one shape share what is
# compiled.


@jax.jit
def _read(model: RecurrentLM, tokens: Int[Array, "1 N"], state: State) -> State:
    return model.scan(jnp.asarray(tokens), state)[1]


@jax.jit
def _read_scored(
    model: RecurrentLM, tokens: Int[Array, "1 N"], following: Int[Array, "1 N"], state: State, wants_top: Array
) -> tuple[TokenBatch, State]:
    logits, state = model.scan(jnp.asarray(tokens), state)
    scored = _row_by_row(partial(_scored, wants_top), (logits[0], following[0]), jnp.asarray(tokens.shape[1]))
    return jax.tree.map(lambda array: array[None], scored), state


@jax.jit
def _decode_natively(
    model: NativeModel,
    texts: DecodeState,
    samplers: Sampler,
    forced: Forced,
    counts: Int[Array, " B"],
    wants_top: Array,
) -> tuple[TokenBatch, DecodeState]:
    before, structure = jax.tree.flatten(texts)
    how = jax.tree.leaves((samplers, forced, counts, wants_top))
    made = model.decode(before, how, MAX_CHUNK, min(MAX_ALTERNATIVES, model.config.vocab_size))
    return TokenBatch(*made[len(before) :]), jax.tree.unflatten(structure, made[: len(before)])


@jax.jit
def _decode_together(
    model: RecurrentLM,
    texts: DecodeState,
    samplers: Sampler,
    forced: Forced,
    counts: Int[Array, " B"],
    wants_top: Array,
) -> tuple[TokenBatch, DecodeState]:
    return _decode(model, texts, samplers, forced, counts, wants_top, _row_by_row)


@jax.jit
def _decode_in_turn(
    model: RecurrentLM,
    texts: DecodeState,
    samplers: Sampler,
    forced: Forced,
    counts: Int[Array, " B"],
    wants_top: Array,
) -> tuple[TokenBatch, DecodeState]:
    def alone(row: tuple[DecodeState, Sampler, Forced, Array]) -> tuple[TokenBatch, DecodeState]:
        text, sampler, forced, count = jax.tree.map(lambda array: array[None], row)
        made = _decode(model, text, sampler, forced, count, wants_top, _only_row)
        unstacked: tuple[TokenBatch, DecodeState] = jax.tree.map(lambda array: array[0], made)
        return unstacked

    drawn, after = _row_by_row(alone, (texts, samplers, forced, counts), _texts_there(counts))
    return drawn, jax.tree.map(partial(_where, counts > 0), after, texts)


def _decode(
    model: RecurrentLM,
    texts: DecodeState,
    samplers: Sampler,
    forced: Forced,
    counts: Int[Array, " B"],
    wants_top: Array,
    each_row: Callable[..., Any],
) -> tuple[TokenBatch, DecodeState]:
    """Advance each text by its count; the batch has room for MAX_CHUNK tokens of each.

    The counts are an argument, so one program makes chunks of every size, and a text cannot depend on its chunks.
    """
    size, top = counts.shape[0], min(MAX_ALTERNATIVES, model.config.vocab_size)
    texts_there = _texts_there(counts)

    def step(index: Int[Array, ""], carry: tuple[TokenBatch, DecodeState]) -> tuple[TokenBatch, DecodeState]:
        drawn, texts = carry
        logits, model_state = model.step(texts.last_token, texts.model_state)
        forced_token = jax.lax.dynamic_index_in_dim(forced.tokens, index, 1, keepdims=False)
        rows = (index < forced.length, forced_token, logits, texts.history, texts.position, samplers)
        made, history = each_row(partial(_one_more, wants_top), rows, texts_there)
        after = DecodeState(model_state, made.ids, texts.position + 1, history)
        goes_on = jax.tree.map(partial(_where, index < counts), after, texts)
        return jax.tree.map(partial(_set, index, 1), drawn, made), goes_on

    empty = TokenBatch(
        ids=jnp.zeros((size, MAX_CHUNK), jnp.int32),
        logprobs=jnp.zeros((size, MAX_CHUNK), jnp.float32),
        top_ids=jnp.zeros((size, MAX_CHUNK, top), jnp.int32),
        top_logprobs=jnp.zeros((size, MAX_CHUNK, top), jnp.float32),
    )
    decoded: tuple[TokenBatch, DecodeState] = jax.lax.fori_loop(0, jnp.max(counts), step, (empty, texts))
    return decoded


def _texts_there(counts: Int[Array, " B"]) -> Int[Array, ""]:
    """Return how many rows there are without those at the end that only fill the batch up, having nothing to make."""
    return jnp.max(jnp.where(counts > 0, jnp.arange(1, counts.shape[0] + 1, dtype=jnp.int32), 0))


def _one_more(wants_top: Array, row: Any) -> tuple[TokenBatch, History]:
    """Return the next token of one text with its scores, and the history with it."""
    is_forced, forced_token, logits, history, position, sampler = row
    token = jnp.where(is_forced, forced_token, next_token(logits, sampler, history, position + 1))
    # The prompt's tokens are in the history already, and are not counted.
    after = jax.tree.map(partial(jnp.where, is_forced), history, history.after(token, sampler.penalty_decay))
    return _scored(wants_top, (logits, token)), after


def _scored(wants_top: Array, row: tuple[Array, Array]) -> TokenBatch:
    """Return a token of one text with its log-probabilities."""
    logits, token = row
    logprobs = jax.nn.log_softmax(logits)
    top = min(MAX_ALTERNATIVES, logits.shape[0])

    def likeliest() -> tuple[Array, Array]:
        values, ids = jax.lax.top_k(logprobs, top)
        return ids, values

    def nothing() -> tuple[Array, Array]:
        return jnp.zeros(top, jnp.int32), jnp.zeros(top, jnp.float32)

    return TokenBatch(token, logprobs[token], *jax.lax.cond(wants_top, likeliest, nothing))


def _only_row(function: Callable[[Any], Any], rows: Any, _count: Array) -> Any:
    return jax.tree.map(lambda array: array[None], function(jax.tree.map(lambda array: array[0], rows)))


def _row_by_row(function: Callable[[Any], Any], rows: Any, count: Array) -> Any:
    """Return ``function`` of each of the first ``count`` rows, one after the other by the same instructions.

    Vectorised over the rows, the last bits of a sum or a logarithm would depend on how many rows there are.
    """
    size = jax.tree.leaves(rows)[0].shape[0]
    shapes = jax.eval_shape(function, jax.tree.map(lambda array: array[0], rows))
    empty = jax.tree.map(lambda shape: jnp.zeros((size, *shape.shape), shape.dtype), shapes)

    def one(index: Int[Array, ""], made: Any) -> Any:
        row = jax.tree.map(lambda array: jax.lax.dynamic_index_in_dim(array, index, keepdims=False), rows)
        # What the function does is not to be fused with how its row came here.
        row = jax.lax.optimization_barrier(row)  # type: ignore[no-untyped-call]
        return jax.tree.map(partial(_set, index, 0), made, function(row))

    return jax.lax.fori_loop(0, count, one, empty)


def _set(index: Array, axis: int, array: Array, value: Array) -> Array:
    return jnp.asarray(jax.lax.dynamic_update_index_in_dim(array, value, index, axis))


def _where(chosen: Array, new: Array, old: Array) -> Array:
    chosen_rows = chosen.reshape(-1, *(1,) * (new.ndim - 1))
    return jnp.asarray(jnp.where(chosen_rows, new, old))


def stacked(rows: Sequence[Any]) -> Any:
    """Return trees of one text each as one tree of all the texts, on the host."""
    return jax.tree.map(lambda *arrays: np.stack([np.asarray(array) for array in arrays]), *rows)


def _on_host(batch: TokenBatch) -> TokenBatch:
    # Whole arrays come over: indexing on the device would compile a gather for each shape.
    made: TokenBatch = jax.tree.map(np.asarray, batch)
    return made
