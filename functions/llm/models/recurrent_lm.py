"""What every recurrent language model offers."""

from typing import Any, ClassVar, Protocol

from functions.llm.array_types import Array, Logits, Params, PRNGKey, StepLogits, StepTokens, Tokens
from functions.llm.ops.quantized import QuantizedWeight

State = Any
"""A tree of arrays, batch first: all that a model remembers of a text, of the same size however long the text."""


class ConfigError(ValueError):
    """A model's configuration has a field that is missing, unknown or out of range; the message names it."""


def require(name: str, value: int | float, *, at_least: int, below: float = float("inf")) -> None:
    """Refuse a configuration's field outside ``[at_least, below)``, by name."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not at_least <= value < below:
        limit = f"at least {at_least}" if below == float("inf") else f"from {at_least} to below {below:g}"
        raise ConfigError(f"{name} is {value!r}; it must be {limit}")


class ModelConfig(Protocol):
    """The shape of a model: what config.json holds of it."""

    @property
    def family(self) -> str: ...
    @property
    def vocab_size(self) -> int: ...
    def param_shapes(self) -> dict[str, tuple[int, ...]]: ...
    def dense_weights(self) -> frozenset[str]: ...


class RecurrentLM(Protocol):
    """A recurrent language model: parameters, and pure functions over them.

    Every family is a JAX tree whose leaves are the parameters, so a model is passed straight into ``jax.jit``.

    The laws (tested for every family):
        - scan equals steps: one pass over T tokens gives the logits and the state of T steps.
        - causality: later tokens never change earlier logits.
        - resuming: going on from a state equals never having stopped.
    """

    config_type: ClassVar[type[Any]]

    rows_are_independent: ClassVar[bool]
    """Whether a text's bits are the same in every batch; where XLA chooses the products, they are not."""

    def __init__(self, config: Any, params: Params) -> None: ...

    @property
    def config(self) -> Any:
        """The family's own `ModelConfig`."""

    @property
    def params(self) -> Params:
        """The arrays, by name; an int8 matrix is a `QuantizedWeight`."""

    def init_state(self, batch: int) -> State:
        """Return the memory of nothing, for ``batch`` texts."""
        ...

    def step(self, tokens: StepTokens, state: State) -> tuple[StepLogits, State]:
        """Read one token of each text; return the next token's logits in float32, and the new state."""
        ...

    def scan(self, tokens: Tokens, state: State, dropout_key: PRNGKey | None = None) -> tuple[Logits, State]:
        """Read T tokens of each text; return the logits after each, and the new state.

        With a ``dropout_key`` the model's dropout is on: for training.
        """
        ...

    @classmethod
    def init_params(cls, config: Any, key: PRNGKey) -> dict[str, Array]:
        """Return fresh float32 parameters, drawn from ``key``."""
        ...


def check_params(config: ModelConfig, params: Params) -> None:
    """Refuse parameters whose names, shapes or types are not what ``config`` says."""
    expected = config.param_shapes()
    for name in sorted(expected.keys() - params.keys()):
        raise ConfigError(f"{name} is missing; the config asks for it with shape {expected[name]}")
    for name in sorted(params.keys() - expected.keys()):
        raise ConfigError(f"{name} is not a parameter of this {config.family}")
    quantizable = config.dense_weights()
    for name, shape in expected.items():
        if tuple(params[name].shape) != shape:
            raise ConfigError(f"{name} has shape {tuple(params[name].shape)}, the config says {shape}")
        if isinstance(params[name], QuantizedWeight) and name not in quantizable:
            raise ConfigError(f"{name} is int8; of a {config.family} only what dense multiplies with can be")
