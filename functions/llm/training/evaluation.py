"""How well a model foresees a text."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from functions.llm.array_types import Array, Float, Tokens
from functions.llm.models import RecurrentLM, State
from functions.llm.ops.cross_entropy import cross_entropy
from functions.llm.tokenizers import Tokenizer
from functions.llm.tokenizers.tokenizer import TokenArray

ROWS = 32
"""Windows that are read at a time."""
PIECE = 1024
"""Tokens of one text that are read at a time."""


@dataclass(frozen=True)
class Evaluation:
    """The loss over a text.

    Args:
        nats: sum over all scored tokens of -ln p(token | what came before).
        tokens: how many were scored; the first of a text, foreseen from nothing, is not.
        bytes: UTF-8 bytes of the scored text.
    """

    nats: float
    tokens: int
    bytes: int

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes

    @property
    def perplexity(self) -> float:
        return math.exp(self.nats_per_token)


def evaluate_windows(model: RecurrentLM, tokenizer: Tokenizer, tokens: TokenArray, window: int) -> Evaluation:
    """Score windows of ``window`` tokens, each read from an empty memory.

    Every token but the text's first is scored once. The last window begins so far back that it is full, as
    lm-evaluation-harness has it (get_rolling_token_windows), and scores only what the one before it did not.
    """
    scored = len(tokens) - 1
    window = min(window, scored)
    scored_from = np.arange(0, scored, window)
    begins = np.minimum(scored_from, scored - window)
    nats = 0.0
    for first in range(0, len(begins), ROWS):
        part = slice(first, first + ROWS)
        rows = np.asarray(tokens[begins[part, None] + np.arange(window + 1)], np.int32)
        losses, _ = _losses(model, jnp.asarray(rows[:, :-1]), jnp.asarray(rows[:, 1:]), model.init_state(len(rows)))
        is_new = np.arange(window) >= (scored_from - begins)[part, None]
        nats += float(np.asarray(losses).sum(where=is_new))
    return Evaluation(nats, scored, _scored_bytes(tokenizer, tokens))


def evaluate_carried(model: RecurrentLM, tokenizer: Tokenizer, tokens: TokenArray) -> Evaluation:
    """Score the whole text as one, the memory carried from its beginning to its end."""
    state = model.init_state(1)
    nats = 0.0
    for first in range(0, len(tokens) - 1, PIECE):
        piece = np.asarray(tokens[first : first + PIECE + 1], np.int32)[None]
        losses, state = _losses(model, jnp.asarray(piece[:, :-1]), jnp.asarray(piece[:, 1:]), state)
        nats += float(np.asarray(losses).sum())
    return Evaluation(nats, len(tokens) - 1, _scored_bytes(tokenizer, tokens))


def _scored_bytes(tokenizer: Tokenizer, tokens: TokenArray) -> int:
    lengths = np.asarray([len(tokenizer.token_bytes(token)) for token in range(tokenizer.vocab_size)])
    return int(lengths[tokens[1:]].sum())


@jax.jit
def _losses(model: RecurrentLM, inputs: Tokens, targets: Tokens, state: State) -> tuple[Float[Array, "B T"], State]:
    logits, state = model.scan(inputs, state)
    return cross_entropy(logits, targets), state
