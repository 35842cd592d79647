"""OpenAI's API over a real model: what it says of a text is what the model computes, to the last token."""

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import openai
import pytest

from functions.backend.app import build_app as build_backend
from functions.backend.settings import Settings as BackendSettings
from functions.llm.app import build_app as build_llm
from functions.llm.checkpoints.checkpoint import save_checkpoint
from functions.llm.models import LSTM, LSTMConfig
from functions.llm.settings import Settings as LLMSettings
from functions.llm.tokenizers import ByteTokenizer
from tests.backend.conftest import serve

CONFIG = LSTMConfig(vocab_size=256, emb=16, hid=32, layers=2)
# Weights that make some tokens much likelier than others.
MODEL = LSTM(CONFIG, {name: 4 * array for name, array in LSTM.init_params(CONFIG, jax.random.key(0)).items()})

# Pieces of a prompt are read at once, the rest token by token: lengths on all sides of where these meet.
TEXTS = ["R", "Où", " \n spaces stay ", "Nevermore, said the raven — 🐦‍⬛. " * 2, "é" * 40, "a" * 65]
MAX_BYTES = 128
SCAN = jax.jit(lambda model, tokens, state: model.scan(tokens, state))


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[openai.OpenAI]:
    """OpenAI's client of a backend over a model of bytes with random weights."""
    folder = tmp_path_factory.mktemp("ckpts") / "bytes"
    save_checkpoint(folder, MODEL, ByteTokenizer(), "# bytes\n")
    with (
        serve(build_llm(LLMSettings(ckpt_path=folder, metrics_port=0))) as llm,
        serve(build_backend(BackendSettings(llm_url=f"{llm}/generate/stream"))) as backend,
        openai.OpenAI(base_url=f"{backend}/v1", api_key="none", max_retries=20) as client,
    ):
        yield client


def computed(tokens: list[int]) -> np.ndarray:
    """The model's log-probabilities after each token, (T, V)."""
    # All as long as the longest: what comes later changes nothing, and one length is compiled once.
    padded = jnp.asarray([tokens + [0] * (MAX_BYTES - len(tokens))])
    logits, _ = SCAN(MODEL, padded, MODEL.init_state(1))
    return np.asarray(jax.nn.log_softmax(logits[0].astype(jnp.float32)))[: len(tokens)]


def name(token: int) -> str:
    return chr(token) if token < 128 else f"bytes:\\x{token:02x}"


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("as_ids", [False, True])
def test_an_echo_is_scored_as_the_model_scores_it(client, text, as_ids):
    """Every token by what stood before it, its rank among the likeliest included; of the first there is nothing."""
    ids = list(text.encode())
    [choice] = client.completions.create(
        model="bytes", prompt=ids if as_ids else text, max_tokens=1, echo=True, logprobs=3, temperature=0, seed=1
    ).choices
    said = choice.logprobs
    assert len(said.tokens) == len(ids) + 1
    assert said.tokens[:-1] == [name(token) for token in ids]
    assert said.token_logprobs[0] is said.top_logprobs[0] is None
    scores = computed(ids)
    new = int(scores[-1].argmax())
    assert said.tokens[-1] == name(new)
    # Seven digits of float32, summed in another order.
    expected = [float(scores[place, token]) for place, token in enumerate([*ids[1:], new])]
    assert said.token_logprobs[1:] == pytest.approx(expected, abs=2e-5)
    for place, (top, logprob) in enumerate(zip(said.top_logprobs[1:], said.token_logprobs[1:], strict=True)):
        # What an evaluation asks to know whether the model would have said so itself: equal to the digit.
        assert (logprob == max(top.values())) == (expected[place] == scores[place].max())
        assert sorted(top.values(), reverse=True)[:3] == pytest.approx(np.sort(scores[place])[::-1][:3], abs=2e-5)
        assert len(top) in {3, 4}
    assert choice.text.startswith(text)
    for token, start, end in zip(said.tokens, said.text_offset, [*said.text_offset[1:], len(choice.text)], strict=True):
        assert choice.text[start:end] in {token, ""} or token.startswith("bytes:")


def test_a_batch_scores_what_each_prompt_alone_would(client):
    """Company changes nothing, nor does a prompt that somebody has asked before."""
    texts = [text for text in TEXTS if len(text) > 1]
    alone = [
        client.completions.create(model="bytes", prompt=text, max_tokens=0, echo=True, logprobs=0).choices[0]
        for text in texts
    ]
    together = client.completions.create(model="bytes", prompt=texts, max_tokens=0, echo=True, logprobs=0)
    for one, other in zip(alone, together.choices, strict=True):
        assert one.text == other.text
        assert one.logprobs.token_logprobs[1:] == pytest.approx(other.logprobs.token_logprobs[1:], abs=2e-5)
    assert together.usage.completion_tokens == 0
    assert together.usage.prompt_tokens == sum(len(text.encode()) for text in texts)


def test_a_streamed_echo_is_the_whole_one(client):
    """Joined, the chunks are the answer."""
    ask = {"model": "bytes", "prompt": TEXTS[3], "max_tokens": 9, "echo": True, "logprobs": 2, "seed": 3}
    [whole] = client.completions.create(**ask).choices
    choices = [chunk.choices[0] for chunk in client.completions.create(**ask, stream=True)]
    assert "".join(choice.text for choice in choices) == whole.text
    for field in ("tokens", "text_offset"):
        joined = [one for choice in choices if choice.logprobs for one in getattr(choice.logprobs, field)]
        assert joined == getattr(whole.logprobs, field)
    streamed = [one for choice in choices if choice.logprobs for one in choice.logprobs.token_logprobs]
    assert streamed[0] is None
    assert streamed[1:] == pytest.approx(whole.logprobs.token_logprobs[1:], abs=2e-5)
    assert math.isfinite(sum(streamed[1:]))


def test_a_conversation_is_its_text(client):
    """Law: an answer to messages is what follows their text, which /tokenize tells, with the same probabilities."""
    messages = [{"role": "system", "content": "Où ?"}, {"role": "user", "content": "Là."}]
    root = str(client.base_url).removesuffix("/v1/")
    tokens = client.post(f"{root}/tokenize", body={"messages": messages}, cast_to=object)["tokens"]
    assert bytes(tokens).decode() == "Où ?\n\nUser: Là.\nAssistant:"
    # No stop of the template's own is met by these two tokens.
    ask = {"model": "bytes", "max_tokens": 2, "seed": 5, "logit_bias": {"10": -100}}
    [chat] = client.chat.completions.create(messages=messages, logprobs=True, top_logprobs=2, **ask).choices
    [text] = client.completions.create(prompt=tokens, logprobs=2, **ask).choices
    assert chat.message.content == text.text
    assert [one.token for one in chat.logprobs.content] == text.logprobs.tokens
    scores = computed(tokens + [one.bytes[0] for one in chat.logprobs.content])[len(tokens) - 1 : -1]
    for said, expected in zip(chat.logprobs.content, scores, strict=True):
        assert said.logprob == pytest.approx(float(expected[said.bytes[0]]), abs=2e-5)
        assert [other.bytes[0] for other in said.top_logprobs] == np.argsort(-expected)[:2].tolist()
    detokenized = client.post(f"{root}/detokenize", body={"tokens": tokens}, cast_to=object)
    assert detokenized["prompt"] == bytes(tokens).decode()
