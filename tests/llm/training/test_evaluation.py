"""The loss of a text, against a loop over its tokens."""

import math

import jax
import numpy as np
import pytest

from functions.llm.models import LSTM, LSTMConfig
from functions.llm.tokenizers import CharTokenizer
from functions.llm.training import evaluation
from functions.llm.training.evaluation import evaluate_carried, evaluate_windows

CONFIG = LSTMConfig(vocab_size=9, emb=4, hid=5, layers=1)
TOKENIZER = CharTokenizer.from_text("abcdéfghi")
MODEL = LSTM(CONFIG, LSTM.init_params(CONFIG, jax.random.key(0)))
TOKENS = np.random.default_rng(0).integers(0, 9, 103).astype(np.uint16)
step = jax.jit(lambda token, state: MODEL.step(token, state))


def nats_by_steps(window: int | None) -> float:
    total, state = 0.0, MODEL.init_state(1)
    for t in range(len(TOKENS) - 1):
        if window and t % window == 0:
            state = MODEL.init_state(1)
        logits, state = step(np.asarray([TOKENS[t]], np.int32), state)
        total -= float(jax.nn.log_softmax(logits[0])[TOKENS[t + 1]])
    return total


# 51 divides the 102 scored tokens, 10 leaves a shorter window, 500 is one short window alone.
@pytest.mark.parametrize("window", [10, 51, 500])
def test_windows_start_from_an_empty_memory_and_cover_the_text(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "ROWS", 3)
    found = evaluate_windows(MODEL, TOKENIZER, TOKENS, window)
    assert found.tokens == 102
    assert found.nats == pytest.approx(nats_by_steps(window), rel=1e-5)


def test_the_carried_memory_spans_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "PIECE", 16)
    found = evaluate_carried(MODEL, TOKENIZER, TOKENS)
    assert found.tokens == 102
    assert found.nats == pytest.approx(nats_by_steps(None), rel=1e-5)
    assert found.nats != pytest.approx(nats_by_steps(16), rel=1e-5)


def test_the_units_fit_together() -> None:
    found = evaluate_carried(MODEL, TOKENIZER, TOKENS)
    assert found.perplexity == pytest.approx(math.exp(found.nats_per_token))
    assert found.bytes == len(TOKENIZER.decode(TOKENS[1:].tolist()).encode())
    assert found.bytes > found.tokens  # some characters have two bytes
    assert found.bits_per_byte == pytest.approx(found.nats / math.log(2) / found.bytes)
