"""The families against their papers' equations, written out in numpy with float64, one token and one text at a time."""

import jax
import jax.numpy as jnp
import numpy as np

from functions.llm.models import LSTM, LSTMConfig, MinGRU, MinGRUConfig

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_lstm_is_hochreiter_and_schmidhubers() -> None:
    config = LSTMConfig(vocab_size=10, emb=4, hid=5, layers=2)
    model = LSTM(config, LSTM.init_params(config, jax.random.key(0)))
    p = {name: np.asarray(value, np.float64) for name, value in model.params.items()}
    h, c = np.zeros((2, 5)), np.zeros((2, 5))
    expected = []
    for token in TOKENS:
        x = p["emb.weight"][token]
        for k in range(2):
            gates = p[f"rnn.weight_ih_l{k}"] @ x + p[f"rnn.bias_ih_l{k}"]
            gates += p[f"rnn.weight_hh_l{k}"] @ h[k] + p[f"rnn.bias_hh_l{k}"]
            i, f, g, o = np.split(gates, 4)
            c[k] = sigmoid(f) * c[k] + sigmoid(i) * np.tanh(g)
            x = h[k] = sigmoid(o) * np.tanh(c[k])
        expected.append(p["head.weight"] @ x + p["head.bias"])
    logits, state = model.scan(jnp.asarray([TOKENS]), model.init_state(1))
    np.testing.assert_allclose(logits[0], expected, atol=1e-6)
    np.testing.assert_allclose(state.c[0], c, atol=1e-6)


def test_mingru_is_feng_et_als() -> None:
    config = MinGRUConfig(vocab_size=10, width=6, hidden=7, layers=2, conv=3, mlp=2)
    drawn = MinGRU.init_params(config, jax.random.key(0))
    # Norms and the convolution's bias start at 1 and 0: moved off them, so that a forgotten one shows.
    moved = {n: v + 0.3 * jax.random.normal(jax.random.key(1), v.shape) for n, v in drawn.items()}
    model = MinGRU(config, moved)
    p = {name: np.asarray(value, np.float64) for name, value in moved.items()}

    def norm(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x * x).mean() + 1e-6) * scale

    def gelu(x: np.ndarray) -> np.ndarray:
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    h = [np.zeros(7) for _ in range(2)]
    read: list[list[np.ndarray]] = [[np.zeros(6)] * 2 for _ in range(2)]
    expected = []
    for token in TOKENS:
        x = p["embedding"][token]
        for k in range(2):
            mixer, mlp = f"layers.{k}.mixer.", f"layers.{k}.mlp."
            read[k].append(norm(x, p[mixer + "norm"]))
            u = (np.stack(read[k][-3:]) * p[mixer + "conv.taps"]).sum(0) + p[mixer + "conv.bias"]
            z = sigmoid(p[mixer + "gate.weight"] @ u + p[mixer + "gate.bias"])
            h[k] = (1 - z) * h[k] + z * (p[mixer + "candidate.weight"] @ u)
            x = x + p[mixer + "out.weight"] @ h[k]
            x = x + p[mlp + "down.weight"] @ gelu(p[mlp + "up.weight"] @ norm(x, p[mlp + "norm"]))
        expected.append(p["head.weight"] @ norm(x, p["norm"]))
    logits, state = model.scan(jnp.asarray([TOKENS]), model.init_state(1))
    np.testing.assert_allclose(logits[0], expected, atol=1e-5)
    np.testing.assert_allclose(state.h[0], h, atol=1e-5)
