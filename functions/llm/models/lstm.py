"""Stacked LSTM: embedding, layers with two biases, linear head.

The predecessor's architecture, with torch's names and layouts, so that its checkpoints import without a change.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from functions.llm.array_types import Array, Float, Logits, Params, PRNGKey, StepLogits, StepTokens, Tokens
from functions.llm.models.recurrent_lm import require
from functions.llm.ops.dense import affine
from functions.llm.ops.dropout import dropout
from functions.llm.ops.lstm_layer import lstm_layer


@dataclass(frozen=True)
class LSTMConfig:
    """Sizes, under the names of the predecessor's checkpoints.

    Args:
        vocab_size: V, tokens.
        emb: E, width of the embedding.
        hid: H, hidden units of each layer.
        layers: L.
        dropout: probability between layers and before the head, in training.
    """

    vocab_size: int
    emb: int = 256
    hid: int = 512
    layers: int = 2
    dropout: float = 0.0
    family: str = field(default="lstm", init=False)

    def __post_init__(self) -> None:
        for name in ("vocab_size", "emb", "hid", "layers"):
            require(name, getattr(self, name), at_least=1)
        require("dropout", self.dropout, at_least=0, below=1.0)

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every parameter, by name."""
        shapes: dict[str, tuple[int, ...]] = {"emb.weight": (self.vocab_size, self.emb)}
        for layer in range(self.layers):
            shapes[f"rnn.weight_ih_l{layer}"] = (4 * self.hid, self.hid if layer else self.emb)
            shapes[f"rnn.weight_hh_l{layer}"] = (4 * self.hid, self.hid)
            shapes[f"rnn.bias_ih_l{layer}"] = (4 * self.hid,)
            shapes[f"rnn.bias_hh_l{layer}"] = (4 * self.hid,)
        return shapes | {"head.weight": (self.vocab_size, self.hid), "head.bias": (self.vocab_size,)}

    def dense_weights(self) -> frozenset[str]:
        """Return the matrices that only `dense` reads, and which it takes in any precision."""
        return frozenset(name for name, shape in self.param_shapes().items() if len(shape) == 2) - {"emb.weight"}


class LSTMState(NamedTuple):
    """Hidden vectors and cells of every layer."""

    h: Float[Array, "B L H"]
    c: Float[Array, "B L H"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LSTM:
    """An LSTM language model; see `RecurrentLM` for the interface and its laws."""

    config: LSTMConfig = field(metadata={"static": True})
    params: Params
    config_type: ClassVar[type[LSTMConfig]] = LSTMConfig
    rows_are_independent: ClassVar[bool] = False

    def init_state(self, batch: int) -> LSTMState:
        # From the host: JAX would compile a program that makes zeros, which takes longer than a step.
        zeros = jnp.asarray(np.zeros((batch, self.config.layers, self.config.hid), np.float32))
        return LSTMState(zeros, zeros)

    def step(self, tokens: StepTokens, state: LSTMState) -> tuple[StepLogits, LSTMState]:
        logits, state = self.scan(tokens[:, None], state)
        return logits[:, 0], state

    def scan(self, tokens: Tokens, state: LSTMState, dropout_key: PRNGKey | None = None) -> tuple[Logits, LSTMState]:
        p, rate = self.params, self.config.dropout
        x = p["emb.weight"][tokens].astype(jnp.float32)
        hidden, cells = [], []
        for layer in range(self.config.layers):
            # The input's share of the gates needs no loop: one matrix product for all steps.
            bias = p[f"rnn.bias_ih_l{layer}"] + p[f"rnn.bias_hh_l{layer}"]
            gates = affine(x, p[f"rnn.weight_ih_l{layer}"], bias)
            x, h, c = lstm_layer(gates, p[f"rnn.weight_hh_l{layer}"], state.h[:, layer], state.c[:, layer])
            x = dropout(x, rate, None if dropout_key is None else jax.random.fold_in(dropout_key, layer))
            hidden.append(h)
            cells.append(c)
        logits = affine(x, p["head.weight"], p["head.bias"])
        return logits, LSTMState(jnp.stack(hidden, axis=1), jnp.stack(cells, axis=1))

    @classmethod
    def init_params(cls, config: LSTMConfig, key: PRNGKey) -> dict[str, Array]:
        """Draw torch's defaults: a normal embedding, everything else uniform within 1/sqrt(hid)."""
        bound = 1 / math.sqrt(config.hid)
        params = {}
        for index, (name, shape) in enumerate(config.param_shapes().items()):
            drawn_from = jax.random.fold_in(key, index)
            if name == "emb.weight":
                params[name] = jax.random.normal(drawn_from, shape)
            else:
                params[name] = jax.random.uniform(drawn_from, shape, minval=-bound, maxval=bound)
        return params
