"""The routes that tell of tokens, in the forms that lm-evaluation-harness and llama.cpp's clients send."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from functions.backend.adapters import http_tokenizer_gateway
from functions.backend.controllers.openai import tokenization
from functions.backend.settings import Settings
from tests.backend.controllers.openai.test_refusals import expect_error

INFO = {
    "model": "bytes",
    "kind": "byte",
    "vocab_size": 256,
    "max_prompt_tokens": 99,
    "bos_token": None,
    "eos_token": "<|endanswer|>",
    "special_tokens": {"<|endanswer|>": 3},
    "chat_template": "{{ messages }}",
}


@pytest.fixture
def bytes_llm(llm):
    """A model service whose tokens are bytes."""

    async def script(exchange):
        body = json.loads(exchange.body or b"{}")
        if exchange.path == "/tokenizer_info":
            await exchange.answer(INFO)
        elif exchange.path == "/detokenize":
            await exchange.answer({"model": "bytes", "text": bytes(body["tokens"]).decode("utf-8", "replace")})
        else:
            text = body["prompt"] if isinstance(body["prompt"], str) else json.dumps(body["prompt"])
            raw = text.encode()
            await exchange.answer({"model": "bytes", "tokens": list(raw), "pieces": [f"{byte:02x}" for byte in raw]})

    llm.script = script
    return llm


def test_as_lm_eval_asks(backend, bytes_llm):
    """Its RemoteTokenizer reads eos_token, tokens and prompt."""
    assert backend.get("/tokenizer_info").json()["eos_token"] == "<|endanswer|>"
    answer = backend.post("/tokenize", json={"prompt": "Où", "add_special_tokens": False}).json()
    assert answer == {"tokens": list("Où".encode()), "count": 3, "max_model_len": 99, "token_strs": None}
    assert backend.post("/detokenize", json={"tokens": answer["tokens"]}).json()["prompt"] == "Où"


def test_as_llama_cpp_clients_ask(backend, bytes_llm):
    """`content` in and out, and pieces that are bytes where no text can say them."""
    body = {"content": "aù", "add_special": True, "parse_special": True, "with_pieces": True}
    assert backend.post("/tokenize", json=body).json()["tokens"] == [
        {"id": 97, "piece": "a"},
        {"id": 0xC3, "piece": [0xC3]},
        {"id": 0xB9, "piece": [0xB9]},
    ]
    assert backend.post("/detokenize", json={"tokens": [97]}).json()["content"] == "a"


def test_a_conversation_is_cut_as_the_template_writes_it(backend, bytes_llm):
    """It is sent on as it would be to be answered."""
    messages = [{"role": "user", "content": "a"}]
    body = {"messages": messages, "add_generation_prompt": False, "model": "bytes", "return_token_strs": True}
    answer = backend.post("/tokenize", json=body).json()
    assert "".join(answer["token_strs"]) == json.dumps({"messages": messages, "add_generation_prompt": False})
    assert json.loads(bytes_llm.exchanges[0].body)["model"] == "bytes"


def test_an_empty_text_has_no_tokens(backend, bytes_llm):
    """Nothing is nothing, and no fault."""
    assert backend.post("/tokenize", json={"prompt": ""}).json()["count"] == 0
    assert backend.post("/detokenize", json={"tokens": []}).json()["prompt"] == ""


def test_all_that_is_known_of_a_tokenizer(backend, bytes_llm):
    """Of the model that is named."""
    assert backend.get("/tokenizer_info", params={"model": "é&"}).json() == {
        "model": "bytes",
        "tokenizer_class": "byte",
        "vocab_size": 256,
        "model_max_length": 99,
        "bos_token": None,
        "eos_token": "<|endanswer|>",
        "pad_token": None,
        "unk_token": None,
        "additional_special_tokens": ["<|endanswer|>"],
        "chat_template": "{{ messages }}",
    }


def test_what_is_told_of_the_longest_prompt_is_what_is_taken(backend_with, bytes_llm):
    """By the model service, and by the API in front of it."""
    for own, longest in ((50, 50), (99, 99), (100, 99)):
        with backend_with(Settings(llm_url=bytes_llm.stream_url, max_prompt_tokens=own)) as client:
            assert client.get("/tokenizer_info").json()["model_max_length"] == longest
            assert client.post("/tokenize", json={"prompt": "a"}).json()["max_model_len"] == longest


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "content": "a"}, "prompt"),
        ("/tokenize", {"prompt": 1}, "prompt"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/tokenize", {"text": "a"}, "text"),
        ("/tokenize", {"content": "a" * 100_001}, "content"),
        ("/tokenize", {"messages": [{"role": "user", "content": "a" * 100_001}]}, "messages"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": [0] * 100_001}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": ["a"]}, "tokens"),
    ],
)
def test_what_cannot_be_served_is_named(backend, llm, path, body, param):
    """In OpenAI's shape."""
    expect_error(backend.post(path, json=body), 400, "invalid_request", param)
    assert llm.exchanges == []


@pytest.mark.parametrize(
    ("module", "name"),
    [(tokenization, "_read_text"), (tokenization, "write_tokens"), (http_tokenizer_gateway, "_tokens")],
)
def test_a_long_text_holds_up_nobody(backend, bytes_llm, monkeypatch, module, name):
    """Each part of the work can wait for another request's answer, so it is not where that one is answered."""
    answered, work = threading.Event(), getattr(module, name)

    def waits(*args, **options):
        entered.set()
        assert answered.wait(10)
        return work(*args, **options)

    entered = threading.Event()
    monkeypatch.setattr(module, name, waits)
    with ThreadPoolExecutor(1) as pool:
        cut = pool.submit(backend.post, "/tokenize", json={"prompt": "a" * 60_000})
        assert entered.wait(10)
        assert backend.get("/livez").status_code == 200
        answered.set()
        assert cut.result().json()["count"] == 60_000


@pytest.mark.parametrize("count", [0, 1, 1000, 2500])
def test_an_answer_is_whole_however_long(backend, bytes_llm, count):
    """In every form."""
    text = ('é"' * count)[:count]
    raw = text.encode()
    plain = backend.post("/tokenize", json={"prompt": text, "return_token_strs": True}).json()
    assert plain["tokens"] == list(raw)
    assert plain["token_strs"] == [bytes([byte]).decode("utf-8", "replace") for byte in raw]
    pieces = backend.post("/tokenize", json={"prompt": text, "with_pieces": True}).json()
    assert [piece["id"] for piece in pieces["tokens"]] == list(raw)
    assert plain["count"] == pieces["count"] == len(raw)


def test_methods_that_are_not_there(backend):
    """405, in the same shape."""
    for path in ("/tokenize", "/detokenize"):
        expect_error(backend.get(path), 405, "method_not_allowed")
    expect_error(backend.post("/tokenizer_info"), 405, "method_not_allowed")


def test_an_answer_that_is_no_answer(backend, llm):
    """A service of another kind behind the address is found out."""

    async def script(exchange):
        await exchange.answer({"tokens": "many"})

    llm.script = script
    expect_error(backend.post("/tokenize", json={"prompt": "a"}), 502, "llm_error", kind="server_error")
