"""Keys and quotas, as OpenAI's own client meets them."""

import asyncio
import json
import time

import httpx
import openai
import pytest

from functions.backend.adapters.key_stores import key_store_named
from functions.backend.app import build_app
from functions.backend.domain.key import Key, digest_of, mint
from functions.backend.domain.quota import Quota
from functions.backend.settings import Settings
from tests.backend.conftest import serve
from tests.backend.controllers.openai.conftest import frames, says
from tests.backend.controllers.openai.test_tokenization import INFO
from tests.undisturbed import undisturbed

ASK = {"model": "m", "prompt": "abc", "max_tokens": 10}


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """The name of a store, and two keys: one that may generate, one that may only administer."""
    name = f"sqlite:{tmp_path_factory.mktemp('keys') / 'keys.sqlite'}"
    texts = {}

    async def add():
        store = key_store_named(name, "", {})
        for place, (scope, quota) in enumerate((("generate", Quota(tokens_per_minute=100)), ("admin", Quota()))):
            key_id, texts[scope] = mint(bytes(37) + bytes([place]))
            await store.add(Key(key_id, scope, digest_of(texts[scope]), frozenset({scope}), time.time(), quota))
        await store.aclose()

    asyncio.run(add())
    return name, texts


@pytest.fixture(scope="module")
def address(keys, _llm_server):
    settings = Settings(llm_url=_llm_server.stream_url, auth="on", key_store=keys[0], session_secrets=("s" * 32,))
    with serve(build_app(settings)) as url:
        yield url


def spent(keys):
    """Give the tokens that the key has paid."""

    async def ask():
        store = key_store_named(keys[0], "", {})
        try:
            [total] = await store.totals([f"key:{keys[1]['generate'].split('_')[1]}"])
            return total.tokens
        finally:
            await store.aclose()

    return asyncio.run(ask())


def client_with(address, key):
    return openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0)


def test_without_a_key_nothing_is_said(address, llm):
    """Neither what models there are, nor what is wrong with the request."""
    with client_with(address, "hgn_wrong") as client:
        for ask in (
            client.models.list,
            lambda: client.completions.create(model="m", prompt=""),
            lambda: client.chat.completions.create(model="m", messages=[], stream=True),
            lambda: client.post(f"{address}/tokenize", body={}, cast_to=object),
        ):
            with pytest.raises(openai.AuthenticationError) as raised:
                ask()
            assert (raised.value.code, raised.value.type) == ("invalid_api_key", "authentication_error")
            assert raised.value.response.headers["www-authenticate"].startswith("Bearer")
    assert llm.exchanges == []


def test_a_key_without_the_scope(address, keys):
    """403."""
    with client_with(address, keys[1]["admin"]) as client, pytest.raises(openai.PermissionDeniedError):
        client.completions.create(**ASK)


@pytest.mark.usefixtures("one_minute")
def test_what_is_used_is_counted_and_told(address, keys, llm):
    """All texts of a request at once: its limits in the headers, its cost in the usage, and 429 when all is used."""
    llm.script = says("x", "y")
    with client_with(address, keys[1]["generate"]) as client:
        raw = client.completions.with_raw_response.create(**ASK, n=2)
        assert raw.headers["x-ratelimit-limit-tokens"] == "100"
        usage = raw.parse().usage
        assert usage.completion_tokens == 4
        assert usage.cost_usd > 0
        stream = client.completions.create(**ASK, n=2, stream=True, stream_options={"include_usage": True})
        assert list(stream)[-1].usage.cost_usd > 0
        # Twice 2 texts of 3 + 2 tokens are used: 80 are left, and 7 texts of up to 13 might need more.
        with pytest.raises(openai.RateLimitError) as raised:
            client.completions.create(**ASK, n=7)
        assert (raised.value.code, raised.value.type) == ("rate_limit_exceeded", "rate_limit_error")
        assert int(raised.value.response.headers["retry-after"]) > 0
        assert raised.value.response.headers["x-ratelimit-remaining-tokens"] == "80"


EMOJI, NOTHING = "\U0001f600", {"role": "user", "content": ""}


@pytest.mark.parametrize(
    ("path", "ask"),
    [
        ("/v1/completions", {"prompt": EMOJI * 25, "max_tokens": 1}),
        ("/v1/completions", {"prompt": ["a", EMOJI * 25], "max_tokens": 1}),
        ("/v1/chat/completions", {"messages": [NOTHING] * 5, "max_tokens": 1}),
        ("/v1/chat/completions", {"messages": [NOTHING | {"content": EMOJI * 25}], "max_tokens": 1}),
        ("/tokenize", {"prompt": EMOJI * 26}),
        ("/tokenize", {"messages": [NOTHING] * 5}),
    ],
)
def test_what_may_be_read_is_taken_before(address, keys, llm, path, ask):
    """In bytes, each message with what surrounds it: what is never going to fit is refused before it is read."""
    headers = {"authorization": f"Bearer {keys[1]['generate']}"}
    refused = httpx.post(f"{address}{path}", json={"model": "m"} | ask, headers=headers, timeout=30)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert refused.headers["x-ratelimit-limit-tokens"] == "100"
    assert refused.headers["x-should-retry"] == "false"
    assert "retry-after" not in refused.headers
    assert llm.exchanges == []


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_refused_costs_nothing(address, keys, llm, stream):
    """Of several prompts one is bad: nothing is made of the others, and all that was taken is there again."""

    async def refuse(exchange):
        error = {"code": "invalid_prompt", "message": "prompt holds the token id 70.", "field": "prompt"}
        await exchange.answer({"error": error}, status=422)

    llm.script, llm.check = says("x", "y"), refuse
    before = spent(keys)
    with client_with(address, keys[1]["generate"]) as client, pytest.raises(openai.BadRequestError) as raised:
        client.completions.create(model="m", prompt=[[1], [70]], max_tokens=1, stream=stream)
    assert (raised.value.code, raised.value.param) == ("invalid_request", "prompt")
    assert (spent(keys), llm.exchanges) == (before, [])


@undisturbed
def test_what_was_made_before_another_text_failed_is_counted(address, keys, llm):
    """Nobody gets it, and yet it was made."""

    async def script(exchange):
        if json.loads(exchange.body)["prompt"] == "a":
            await exchange.answer(frames("x", "y"))
        else:
            await asyncio.sleep(0.1)
            await exchange.answer({"error": {"code": "internal", "message": "No."}}, status=500)

    llm.script = script
    before = spent(keys)
    with client_with(address, keys[1]["generate"]) as client, pytest.raises(openai.InternalServerError):
        client.completions.create(model="m", prompt=["a", "b"], max_tokens=1)
    assert spent(keys) - before == 5


@pytest.mark.usefixtures("one_minute")
def test_what_is_cut_counts_as_what_is_read(keys, address, llm):
    """A long text costs as the prompt that it may become, and who has used all is told when to come back."""
    name, text = keys[0], ""

    async def script(exchange):
        if exchange.path == "/tokenizer_info":
            await exchange.answer(INFO)
        elif exchange.path == "/detokenize":
            await exchange.answer({"model": "bytes", "text": "a"})
        else:
            await exchange.answer({"model": "bytes", "tokens": [97] * 30, "pieces": ["61"] * 30})

    async def add():
        nonlocal text
        store = key_store_named(name, "", {})
        key_id, text = mint(bytes(37) + b"\x07")
        quota = Quota(tokens_per_minute=100)
        await store.add(Key(key_id, "cuts", digest_of(text), frozenset({"generate"}), time.time(), quota))
        await store.aclose()

    asyncio.run(add())
    llm.script = script
    with httpx.Client(base_url=address, headers={"authorization": f"Bearer {text}"}, timeout=30) as client:
        assert client.post("/tokenize", json={"prompt": "a" * 90}).status_code == 200
        assert client.post("/detokenize", json={"tokens": [97] * 30}).status_code == 200
        refused = client.post("/tokenize", json={"prompt": "a" * 41})
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert refused.headers["x-ratelimit-remaining-tokens"] == "40"
        assert int(refused.headers["retry-after"]) > 0
