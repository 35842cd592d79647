"""Models whose step and scan are one call of the kernel each, over one packed array of weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from functions.llm.array_types import Array, Logits, Params, PRNGKey, StepLogits, StepTokens, Tokens
from functions.llm.models import LSTM, LSTMConfig, MinGRU, MinGRUConfig, ModelConfig, RecurrentLM
from functions.llm.models.lstm import LSTMState
from functions.llm.models.mingru import MinGRUState
from functions.llm.native.aligned import aligned_bytes
from functions.llm.native.library import DECODE, FAMILIES, KernelUnavailableError, Source, load_kernel
from functions.llm.ops.quantized import QuantizedWeight

PRECISIONS = ("float32", "bfloat16", "int8")
"""Of the matrices, all of one kind; in the kernel's order."""

MAX_PACKED_BYTES = 256 * 2**20
"""Beyond that a second copy of the weights costs more memory than a model is worth that waits for memory anyway."""


@dataclass(frozen=True)
class NativeModel:
    """What the families have in common. The tree's one leaf is ``packed``, in which weights have no names."""

    config: Any = field(metadata={"static": True})
    precision: str = field(metadata={"static": True})
    packed: Array
    rows_are_independent: ClassVar[bool] = True

    @property
    def params(self) -> Params:
        """Nothing to return: the packed weights have no names."""
        raise AttributeError("a native model's weights are packed; ask the model that it was made of for its params")

    @classmethod
    def init_params(cls, config: Any, key: PRNGKey) -> dict[str, Array]:  # noqa: ARG003 - as RecurrentLM has it
        """Not to be had: a native model is made of another one, by `accelerated`."""
        raise TypeError("a native model is made of another one: accelerated(model)")

    def decode(self, texts: Sequence[Array], how: Sequence[Array], room: int, alternatives: int) -> list[Array]:
        """Return the texts after their next tokens, and what was drawn: one call for all steps of all texts.

        Args:
            texts: what each step changes, batch first: the state's two arrays, the last tokens and their positions (B),
                the tokens seen and the counts of tokens drawn (B, V).
            how: what it reads: the samplers' ten arrays, the forced tokens (B, room) and how many (B), how many tokens
                each text makes, 0 to ``room``, (B), and whether alternatives are wanted.
            room: tokens of a text that the results hold.
            alternatives: K, how many likeliest tokens.

        Returns:
            ``texts``, then ids and log-probabilities (B, room), and of the alternatives the same, (B, room, K).
        """
        batch = texts[0].shape[0]
        results = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in texts]  # type: ignore[no-untyped-call]
        for shape in ((batch, room), (batch, room, alternatives)):
            results += [jax.ShapeDtypeStruct(shape, dtype) for dtype in (jnp.int32, jnp.float32)]  # type: ignore[no-untyped-call]
        call = jax.ffi.ffi_call(
            load_kernel().target(DECODE), results, input_output_aliases={1 + i: i for i in range(len(texts))}
        )
        made: Sequence[Array] = call(self.packed, *texts, *how, sizes=self._sizes)
        return list(made)

    @property
    def _sizes(self) -> NDArray[np.int64]:
        return np.array(_sizes(self.config, self.precision), np.int64)

    def _call(
        self, family: str, tokens: Tokens, state: Sequence[Array], dropout_key: PRNGKey | None
    ) -> tuple[Logits, list[Array]]:
        if dropout_key is not None:
            raise ValueError("a native model has no dropout; train the model that it was made of")
        kernel = load_kernel()
        results = [_result((*tokens.shape, self.config.vocab_size))]
        results += [_result(array.shape) for array in state]
        # The state is changed where it stands.
        call = jax.ffi.ffi_call(
            kernel.target(family), results, input_output_aliases={2 + i: 1 + i for i in range(len(state))}
        )
        logits, *after = call(self.packed, tokens.astype(jnp.int32), *state, sizes=self._sizes)
        return logits, after


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NativeMinGRU(NativeModel):
    """A `MinGRU` that the kernel runs."""

    config_type: ClassVar[type[MinGRUConfig]] = MinGRUConfig

    def init_state(self, batch: int) -> MinGRUState:
        return MinGRU(self.config, {}).init_state(batch)

    def step(self, tokens: StepTokens, state: MinGRUState) -> tuple[StepLogits, MinGRUState]:
        logits, state = self.scan(tokens[:, None], state)
        return logits[:, 0], state

    def scan(
        self, tokens: Tokens, state: MinGRUState, dropout_key: PRNGKey | None = None
    ) -> tuple[Logits, MinGRUState]:
        logits, after = self._call("mingru", tokens, state, dropout_key)
        return logits, MinGRUState(*after)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NativeLSTM(NativeModel):
    """An `LSTM` that the kernel runs."""

    config_type: ClassVar[type[LSTMConfig]] = LSTMConfig

    def init_state(self, batch: int) -> LSTMState:
        return LSTM(self.config, {}).init_state(batch)

    def step(self, tokens: StepTokens, state: LSTMState) -> tuple[StepLogits, LSTMState]:
        logits, state = self.scan(tokens[:, None], state)
        return logits[:, 0], state

    def scan(self, tokens: Tokens, state: LSTMState, dropout_key: PRNGKey | None = None) -> tuple[Logits, LSTMState]:
        logits, after = self._call("lstm", tokens, state, dropout_key)
        return logits, LSTMState(*after)


def _result(shape: tuple[int, ...]) -> Any:
    return jax.ShapeDtypeStruct(shape, jnp.float32)  # type: ignore[no-untyped-call]


def accelerated(model: RecurrentLM) -> RecurrentLM | None:
    """Return ``model`` as the kernel runs it: same configuration, same state, the numbers up to rounding.

    None where the kernel cannot serve it: there is no library, the family is none of its own, its matrices are of
    several kinds, or it is too large. Rows of a batch do not depend on each other, and a scan is its steps, to the bit.

    Raises:
        KernelSettingError: HUGINN_ISA or HUGINN_THREADS is malformed.
    """
    precision = _precision(model)
    if precision is None:
        return None
    # The kernel is code for the CPU: where XLA runs on something else, it has no such call.
    if jax.default_backend() != "cpu":
        return None
    try:
        kernel = load_kernel()
    except KernelUnavailableError:
        return None
    sizes = _sizes(model.config, precision)
    count = kernel.packed_bytes(sizes)
    if not 0 < count <= MAX_PACKED_BYTES:
        return None
    packed = aligned_bytes(count)
    kernel.pack(
        sizes, [_source(model.config, name, model.params[name]) for name in model.config.param_shapes()], packed
    )
    native = NativeLSTM if isinstance(model, LSTM) else NativeMinGRU
    # device_put takes aligned memory over; jnp.asarray would copy it, out of its huge pages.
    return native(model.config, precision, jax.device_put(packed, may_alias=True))


def _precision(model: RecurrentLM) -> str | None:
    """Return the kind of all matrices; None if there are several, or the rest is not made of floats."""
    if not isinstance(model, LSTM | MinGRU):
        return None
    matrices = model.config.dense_weights()
    kinds = {str(model.params[name].dtype) for name in matrices}
    others = {str(value.dtype) for name, value in model.params.items() if name not in matrices}
    if len(kinds) != 1 or not others <= {"float32", "bfloat16"}:
        return None
    (kind,) = kinds
    return kind if kind in PRECISIONS else None


def _sizes(config: Any, precision: str) -> tuple[int, ...]:
    """Return the fields of the kernel's Sizes, in its order."""
    kinds = FAMILIES.index(config.family), PRECISIONS.index(precision)
    if isinstance(config, LSTMConfig):
        return (*kinds, config.vocab_size, config.emb, config.hid, config.layers, 1, 1)
    return (*kinds, config.vocab_size, config.width, config.hidden, config.layers, config.conv, config.mlp)


def _source(config: ModelConfig, name: str, value: Any) -> Source:
    if isinstance(value, QuantizedWeight):
        return Source(
            np.ascontiguousarray(value.values, np.int8), np.ascontiguousarray(np.asarray(value.scale), np.float32)
        )
    bfloat16 = name in config.dense_weights() and value.dtype == ml_dtypes.bfloat16
    return Source(np.ascontiguousarray(value, ml_dtypes.bfloat16 if bfloat16 else np.float32))
