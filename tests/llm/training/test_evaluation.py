"""The loss of a text, against a loop over its tokens."""

import math
from itertools import pairwise

import jax
import numpy as np
import pytest

from functions.llm.models import LSTM, LSTMConfig
from functions.llm.tokenizers import CharTokenizer
from functions.llm.tokenizers.tokenizer import TokenArray
from functions.llm.training import evaluation
from functions.llm.training.evaluation import evaluate_carried, evaluate_windows

CONFIG = LSTMConfig(vocab_size=9, emb=4, hid=5, layers=1)
TOKENIZER = CharTokenizer.from_text("abcdéfghi")
MODEL = LSTM(CONFIG, LSTM.init_params(CONFIG, jax.random.key(0)))
TOKENS = np.random.default_rng(0).integers(0, 9, 103).astype(np.uint16)
step = jax.jit(lambda token, state: MODEL.step(token, state))


def nats_by_steps(tokens: TokenArray) -> list[float]:
    """What each token but the first costs, read one at a time."""
    nats, state = [], MODEL.init_state(1)
    for token, target in pairwise(tokens):
        logits, state = step(np.asarray([token], np.int32), state)
        nats.append(-float(jax.nn.log_softmax(logits[0])[target]))
    return nats


# Of 102 scored tokens. 51 divides them; with 101 one is left, with 52 one is scored already; 500 is more than there is.
@pytest.mark.parametrize("window", [1, 10, 51, 52, 101, 102, 500])
def test_windows_start_from_an_empty_memory_and_cover_the_text(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each token is scored once, and the last window is as full as the others."""
    monkeypatch.setattr(evaluation, "ROWS", 3)
    nats = 0.0
    for end in range(window, 102 + window, window):
        new = min(window, 102 - (end - window))
        begin = max(min(end, 102) - window, 0)
        nats += sum(nats_by_steps(TOKENS[begin : min(end, 102) + 1])[-new:])
    found = evaluate_windows(MODEL, TOKENIZER, TOKENS, window)
    assert found.tokens == 102
    assert found.nats == pytest.approx(nats, rel=1e-5)


def test_the_carried_memory_spans_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "PIECE", 16)
    found = evaluate_carried(MODEL, TOKENIZER, TOKENS)
    assert found.tokens == 102
    assert found.nats == pytest.approx(sum(nats_by_steps(TOKENS)), rel=1e-5)
    assert found.nats != pytest.approx(evaluate_windows(MODEL, TOKENIZER, TOKENS, 16).nats, rel=1e-5)


def test_the_units_fit_together() -> None:
    found = evaluate_carried(MODEL, TOKENIZER, TOKENS)
    assert found.perplexity == pytest.approx(math.exp(found.nats_per_token))
    assert found.bytes == len(TOKENIZER.decode(TOKENS[1:].tolist()).encode())
    assert found.bytes > found.tokens  # some characters have two bytes
    assert found.bits_per_byte == pytest.approx(found.nats / math.log(2) / found.bytes)
