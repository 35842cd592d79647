"""A large body is read beside the event loop."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from functions.backend.controllers import generate
from functions.backend.controllers.openai import chat, completions, tokenization
from tests.backend.controllers.openai.conftest import says

LONG = "a" * 60_000
SAID = [{"role": "user", "content": "a"}]


@pytest.mark.parametrize(
    ("owner", "name", "path", "body", "status"),
    [
        (generate, "read_generation", "/api/llm/generate", {"prompt": LONG}, 413),
        (generate, "read_generation", "/api/llm/stream", {"prompt": LONG}, 413),
        (completions, "read_order", "/v1/completions", {"prompt": "a", "model": "m", "user": LONG}, 200),
        (chat, "read_chat_order", "/v1/chat/completions", {"messages": SAID, "model": "m", "user": LONG}, 200),
        (tokenization.DetokenizeRequest, "read", "/detokenize", {"tokens": [LONG]}, 400),
    ],
)
def test_a_large_body_holds_up_nobody(backend, llm, monkeypatch, owner, name, path, body, status):
    """Reading it can wait for another request's answer, so it is not where that one is answered."""
    llm.script = says("x")
    answered, entered, read = threading.Event(), threading.Event(), getattr(owner, name)

    def waits(*args, **options):
        entered.set()
        assert answered.wait(10)
        return read(*args, **options)

    monkeypatch.setattr(owner, name, waits)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(backend.post, path, json=body)
        assert entered.wait(10)
        assert backend.get("/livez").status_code == 200
        answered.set()
        # It is read as any other is, and so is what is wrong with it.
        assert asking.result().status_code == status
