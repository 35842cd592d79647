"""minGRU: a gated recurrence that is linear in its state, so that training reads a whole text in parallel.

Feng et al. 2024, "Were RNNs All We Needed?", arXiv:2410.01201, section 3.1 and appendix C. A block is

    x <- x + W_o minGRU(conv(norm(x)))        z_t = sigmoid(W_z u_t + b_z),  h_t = (1 - z_t) h_{t-1} + z_t (W_h u_t)
    x <- x + W_down gelu(W_up norm(x))
"""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from functions.llm.array_types import Array, Float, Logits, Params, PRNGKey, StepLogits, StepTokens, Tokens
from functions.llm.models.recurrent_lm import require
from functions.llm.ops.causal_conv import causal_conv
from functions.llm.ops.dense import affine, dense
from functions.llm.ops.dropout import dropout
from functions.llm.ops.linear_recurrence import linear_recurrence
from functions.llm.ops.rms_norm import rms_norm

# Biases of the update gates, spread over the channels: at -4 a channel keeps 98% of its memory a step, at 1 only 27%.
SLOWEST_GATE, FASTEST_GATE = -4.0, 1.0


@dataclass(frozen=True)
class MinGRUConfig:
    """Sizes.

    Args:
        vocab_size: V, tokens.
        width: C, channels of the residual stream.
        hidden: D, channels of the recurrence.
        layers: L.
        conv: K, taps of the causal convolution before the gates.
        mlp: hidden units of the MLP, in widths.
        dropout: probability on the embedding and on each residual, in training.
    """

    vocab_size: int
    width: int = 192
    hidden: int = 384
    layers: int = 4
    conv: int = 4
    mlp: int = 4
    dropout: float = 0.1
    family: str = field(default="mingru", init=False)

    def __post_init__(self) -> None:
        for name in ("vocab_size", "width", "hidden", "layers", "conv", "mlp"):
            require(name, getattr(self, name), at_least=1)
        require("dropout", self.dropout, at_least=0, below=1.0)

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every parameter, by name."""
        C, D = self.width, self.hidden
        shapes: dict[str, tuple[int, ...]] = {"embedding": (self.vocab_size, C)}
        for layer in range(self.layers):
            shapes |= {
                f"layers.{layer}.{name}": shape
                for name, shape in {
                    "mixer.norm": (C,),
                    "mixer.conv.taps": (self.conv, C),
                    "mixer.conv.bias": (C,),
                    "mixer.gate.weight": (D, C),
                    "mixer.gate.bias": (D,),
                    "mixer.candidate.weight": (D, C),
                    "mixer.out.weight": (C, D),
                    "mlp.norm": (C,),
                    "mlp.up.weight": (self.mlp * C, C),
                    "mlp.down.weight": (C, self.mlp * C),
                }.items()
            }
        return shapes | {"norm": (C,), "head.weight": (self.vocab_size, C)}

    def dense_weights(self) -> frozenset[str]:
        """Return the matrices that only `dense` reads, and which it takes in any precision."""
        return frozenset(name for name in self.param_shapes() if name.endswith(".weight"))


class MinGRUState(NamedTuple):
    """Of every layer, the last K-1 inputs of the convolution and the recurrence's memory."""

    conv: Float[Array, "B L P C"]
    h: Float[Array, "B L D"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MinGRU:
    """A minGRU language model; see `RecurrentLM` for the interface and its laws."""

    config: MinGRUConfig = field(metadata={"static": True})
    params: Params
    config_type: ClassVar[type[MinGRUConfig]] = MinGRUConfig
    rows_are_independent: ClassVar[bool] = False

    def init_state(self, batch: int) -> MinGRUState:
        c = self.config
        # From the host: JAX would compile a program that makes zeros, which takes longer than a step.
        return MinGRUState(
            conv=jnp.asarray(np.zeros((batch, c.layers, c.conv - 1, c.width), np.float32)),
            h=jnp.asarray(np.zeros((batch, c.layers, c.hidden), np.float32)),
        )

    def step(self, tokens: StepTokens, state: MinGRUState) -> tuple[StepLogits, MinGRUState]:
        logits, state = self.scan(tokens[:, None], state)
        return logits[:, 0], state

    def scan(
        self, tokens: Tokens, state: MinGRUState, dropout_key: PRNGKey | None = None
    ) -> tuple[Logits, MinGRUState]:
        rate, layers = self.config.dropout, self.config.layers
        keys = [None] * (2 * layers + 1) if dropout_key is None else list(jax.random.split(dropout_key, 2 * layers + 1))
        x = dropout(self.params["embedding"][tokens].astype(jnp.float32), rate, keys[-1])
        conv, h = [], []
        for layer in range(layers):
            mixed, conv_state, h_state = self._mixer(layer, x, state.conv[:, layer], state.h[:, layer])
            x = x + dropout(mixed, rate, keys[2 * layer])
            x = x + dropout(self._mlp(layer, x), rate, keys[2 * layer + 1])
            conv.append(conv_state)
            h.append(h_state)
        logits = dense(rms_norm(x, self.params["norm"]), self.params["head.weight"])
        return logits, MinGRUState(jnp.stack(conv, axis=1), jnp.stack(h, axis=1))

    def _mixer(
        self, layer: int, x: Float[Array, "B T C"], past: Float[Array, "B P C"], h0: Float[Array, "B D"]
    ) -> tuple[Float[Array, "B T C"], Float[Array, "B P C"], Float[Array, "B D"]]:
        p = _Layer(self.params, f"layers.{layer}.mixer.")
        u, past = causal_conv(rms_norm(x, p["norm"]), past, p["conv.taps"], p["conv.bias"])
        z = jax.nn.sigmoid(affine(u, p["gate.weight"], p["gate.bias"]))
        h = linear_recurrence(1 - z, z * dense(u, p["candidate.weight"]), h0)
        return dense(h, p["out.weight"]), past, h[:, -1]

    def _mlp(self, layer: int, x: Float[Array, "B T C"]) -> Float[Array, "B T C"]:
        p = _Layer(self.params, f"layers.{layer}.mlp.")
        return dense(jax.nn.gelu(dense(rms_norm(x, p["norm"]), p["up.weight"])), p["down.weight"])

    @classmethod
    def init_params(cls, config: MinGRUConfig, key: PRNGKey) -> dict[str, Array]:
        """Draw matrices of variance 1/inputs; those that write to the residual stream are 1/sqrt(2L) of that."""
        into_residual = 1 / math.sqrt(2 * config.layers)
        params = {}
        for index, (name, shape) in enumerate(config.param_shapes().items()):
            drawn_from = jax.random.fold_in(key, index)
            match name.rpartition(".mixer.")[2] if ".mixer." in name else name.rpartition(".mlp.")[2]:
                case "norm":
                    params[name] = jnp.ones(shape)
                case "conv.bias":
                    params[name] = jnp.zeros(shape)
                case "conv.taps":
                    params[name] = jax.random.normal(drawn_from, shape) / math.sqrt(config.conv)
                case "gate.bias":
                    params[name] = jnp.linspace(SLOWEST_GATE, FASTEST_GATE, config.hidden)
                case "out.weight" | "down.weight":
                    params[name] = jax.random.normal(drawn_from, shape) * into_residual / math.sqrt(shape[1])
                case _:
                    params[name] = jax.random.normal(drawn_from, shape) / math.sqrt(shape[1])
        return params


@dataclass(frozen=True)
class _Layer:
    """The parameters under a prefix."""

    params: Params
    prefix: str

    def __getitem__(self, name: str) -> Any:
        return self.params[self.prefix + name]
