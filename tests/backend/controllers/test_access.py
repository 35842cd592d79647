"""Who is let in, what they may, how much, and what they are told of it."""

import asyncio
import base64
import hashlib
import hmac
import json
import re
import threading
import time
from contextlib import suppress

import httpx
import pytest

from functions.backend.adapters.dynamodb import DynamoDB
from functions.backend.adapters.key_stores import key_store_named
from functions.backend.adapters.sqlite_key_store import SQLiteKeyStore
from functions.backend.application import authentication, while_good
from functions.backend.domain.errors import KeyStoreUnavailable
from functions.backend.domain.key import Key, digest_of, mint
from functions.backend.domain.quota import NO_LIMITS, Quota
from functions.backend.settings import Settings
from tests.backend.key_store_server import REGION, TABLE, dynamodb_server
from tests.undisturbed import undisturbed

SECRET = "a secret of the page's sessions 01"
STREAM, GENERATE, MODELS = "/api/llm/stream", "/api/llm/generate", "/api/llm/models"
ASK = {"prompt": "ROMEO:", "max_tokens": 50}
NO_GOOD = "The API key is unknown, or no longer good. Ask whoever runs this for one (`huginn keys new NAME`)."
FIRST = b'event: token\ndata: {"i":6,"id":1,"text":" Ra"}\n\n'
DONE = (
    b'event: done\ndata: {"finish_reason":"length","usage":{"prompt_tokens":6,"completion_tokens":2,"total_tokens":8,'
    b'"cached_prompt_tokens":4,"cpu_seconds":0.25},"seed":42,"model":"muninn-char"}\n\n'
)


async def answers(exchange):
    await exchange.answer(FIRST + DONE)


class Door:
    """A backend that asks who is there, and the store of its keys."""

    def __init__(self, path):
        self.store_name = f"sqlite:{path}"
        self._made = 0

    def key(self, scopes=("generate",), quota=NO_LIMITS, **times):
        """Make a key and give its text."""
        self._made += 1
        key_id, text = mint(self._made.to_bytes(38, "big"))
        self.do(
            "add", Key(key_id, f"key {self._made}", digest_of(text), frozenset(scopes), time.time(), quota, **times)
        )
        return text

    def do(self, method, *arguments):
        async def work():
            store = key_store_named(self.store_name, "", {})
            try:
                return await getattr(store, method)(*arguments)
            finally:
                await store.aclose()

        return asyncio.run(work())


@pytest.fixture(scope="module")
def door(tmp_path_factory):
    return Door(tmp_path_factory.mktemp("keys") / "keys.sqlite")


@pytest.fixture(scope="module")
def _address(door, _llm_server):
    from tests.backend.conftest import serve

    settings = Settings(
        llm_url=_llm_server.stream_url,
        auth="on",
        host="",
        key_store=door.store_name,
        session_secrets=(SECRET, "another one, which is being replaced"),
        session_tokens_per_minute=100,
        session_concurrency=1,
    )
    with serve(build(settings)) as url:
        yield url


def build(settings):
    from functions.backend.app import build_app

    return build_app(settings)


@pytest.fixture
def client(llm, _address):
    from tests.backend.conftest import connect

    llm.script = answers
    with connect(_address) as client:
        yield client


def bearer(key):
    return {"authorization": f"Bearer {key}"}


def session(sid="AAECAwQFBgcICQoLDA0ODw", lasts_s=900, secret=SECRET):
    now = int(time.time())
    said = json.dumps({"sid": sid, "iat": now, "exp": now + lasts_s}).encode()
    payload = base64.urlsafe_b64encode(said).decode().rstrip("=")
    key = hmac.digest(secret.encode(), b"huginn session v1", hashlib.sha256)
    mac = base64.urlsafe_b64encode(hmac.digest(key, f"v1.{payload}".encode(), hashlib.sha256)).decode().rstrip("=")
    return {"cookie": f"other=1; huginn_session=v1.{payload}.{mac}"}


def expect_error(response, status, code):
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert response.headers["x-request-id"]
    return error


def test_a_key_lets_its_holder_in(client, door, llm):
    """And the model service hears of it by a name that is not the key's text."""
    key = door.key()
    assert client.post(STREAM, json=ASK, headers=bearer(key)).text == " Ra"
    assert llm.exchanges[0].headers["x-huginn-client"] == f"key:{key.split('_')[1]}"
    assert key.split("_")[2] not in str(llm.exchanges[0].headers)


OPEN = {"/livez", "/readyz"}


def test_who_brings_nothing_is_told_what_to_bring(client, llm):
    """On every route, whatever is sent, but for the probes and the document; nothing is read."""
    paths = build(Settings(auth="on", host="", session_secrets=(SECRET,))).openapi()["paths"]
    asked = [(path, method) for path, methods in paths.items() if path not in OPEN for method in methods]
    for path, method in asked:
        response = client.request(method, path.strip("{}"), content=b"no JSON" if method == "post" else None)
        assert response.status_code == 401, path
        assert "huginn keys new" in response.json()["error"]["message"]
        assert response.headers["www-authenticate"] == 'Bearer realm="huginn"'
    assert {STREAM, GENERATE, MODELS, "/api/status", "/api/admin/keys", "/v1/completions"} <= {
        path for path, _ in asked
    }
    assert llm.exchanges == []
    assert client.get("/livez").status_code == client.get("/openapi.json").status_code == 200


def test_all_keys_that_are_not_good_are_answered_alike(client, door):
    """Unknown, of another secret, revoked, expired, no key at all: the answer does not tell which."""
    known, revoked = door.key(), door.key()
    door.do("revoke", revoked.split("_")[1], time.time())
    _, unknown = mint(bytes(38))
    bad = [unknown, known[:-1] + ("0" if known[-1] != "0" else "1"), revoked, door.key(expires=time.time() - 1)]
    bad += ["sk-1234", f"{known}x", "é" * 60]
    said = set()
    for key in bad:
        response = client.post(STREAM, json=ASK, headers={"authorization": f"Bearer {key}".encode()})
        expect_error(response, 401, "unauthenticated")
        said.add(response.text)
    assert len(said) == 1


def test_a_revoked_key_is_out_within_seconds(client, door, monkeypatch):
    """What is remembered of it is asked for again."""
    key = door.key()
    assert client.post(GENERATE, json=ASK, headers=bearer(key)).status_code == 200
    door.do("revoke", key.split("_")[1], time.time())
    assert client.post(GENERATE, json=ASK, headers=bearer(key)).status_code == 200
    monkeypatch.setattr(authentication, "REMEMBER_S", 0.0)
    expect_error(client.post(GENERATE, json=ASK, headers=bearer(key)), 401, "unauthenticated")


EVENTS = {"accept": "text/event-stream"}
NO_LONGER = {"code": "unauthenticated", "message": NO_GOOD, "retryable": False}
OPENAI_NO_LONGER = {"code": "invalid_api_key", "message": NO_GOOD, "type": "authentication_error", "param": None}
COMPLETE = {**ASK, "model": "muninn-char"}
CHAT = {"model": "muninn-char", "messages": [{"role": "user", "content": "Who?"}]}


@pytest.fixture
def quick_looks(monkeypatch):
    """Keys are looked up every fifth of a second, where they can be, and where they cannot."""
    monkeypatch.setattr(authentication, "REMEMBER_S", 0.2)
    monkeypatch.setattr(while_good, "_AGAIN_S", 0.2)


@pytest.fixture
def endless(llm):
    """A model service that begins and does not end; gives how many clients have left it."""
    left = threading.Semaphore(0)

    async def script(exchange):
        await exchange.start()
        await exchange.send(FIRST)
        await exchange.until_client_leaves()
        left.release()

    llm.script = script
    return left


@pytest.mark.usefixtures("quick_looks")
@pytest.mark.parametrize("how", ["revoked", "expired"])
@pytest.mark.parametrize(
    ("path", "ask", "last"),
    [
        (STREAM, ASK, f"event: error\ndata: {json.dumps(NO_LONGER, separators=(',', ':'))}\n\n"),
        ("/v1/completions", {**COMPLETE, "stream": True}, f"data: {json.dumps({'error': OPENAI_NO_LONGER})}\n\n"),
        (
            "/v1/completions",
            {**COMPLETE, "stream": True, "n": 3},
            f"data: {json.dumps({'error': OPENAI_NO_LONGER})}\n\n",
        ),
        ("/v1/chat/completions", {**CHAT, "stream": True}, f"data: {json.dumps({'error': OPENAI_NO_LONGER})}\n\n"),
    ],
)
def test_a_stream_ends_when_its_key_is_no_longer_good(client, door, endless, how, path, ask, last):
    """With what a new request would be told as its last event; what was made by then is paid for."""
    key = door.key(quota=Quota(concurrency=1), expires=time.time() + 1.5 if how == "expired" else None)
    with client.stream("POST", path, json=ask, headers={**bearer(key), **EVENTS}) as response:
        assert response.status_code == 200
        told = response.iter_text()
        said = next(told)
        if how == "revoked":
            door.do("revoke", key.split("_")[1], time.time())
        said += "".join(told)
    events = [parts(each) for each in said.split("\n\n")[:-1] if not each.startswith(":")]
    assert events[-1] == parts(last.removesuffix("\n\n"))
    assert "DONE" not in said
    for _ in range(ask.get("n", 1)):
        assert endless.acquire(timeout=20)
    [used] = door.do("totals", [f"key:{key.split('_')[1]}"])
    assert used.tokens == 7 * ask.get("n", 1)


def parts(event):
    """What an event is, and what it says."""
    *kind, data = event.split("\n")
    return kind, json.loads(data.removeprefix("data: "))


@pytest.mark.usefixtures("quick_looks")
def test_a_plain_stream_is_cut_off_when_its_key_is_no_longer_good(client, door, endless):
    """As after every other fault, with a last line that says why."""
    key, said = door.key(), b""
    with client.stream("POST", STREAM, json=ASK, headers=bearer(key)) as response:
        door.do("revoke", key.split("_")[1], time.time())
        told = response.iter_bytes()
        with suppress(httpx.RemoteProtocolError):  # it is of no end, else there would be no next
            while True:
                said += next(told)
    assert said.decode() == f" Ra\n[huginn error] {NO_GOOD}\n"
    assert endless.acquire(timeout=20)


@pytest.mark.usefixtures("quick_looks")
@pytest.mark.parametrize(
    ("path", "ask", "code"),
    [
        (GENERATE, ASK, "unauthenticated"),
        ("/v1/completions", COMPLETE, "invalid_api_key"),
        ("/v1/completions", {**COMPLETE, "n": 3}, "invalid_api_key"),
        ("/v1/chat/completions", CHAT, "invalid_api_key"),
    ],
)
def test_a_whole_answer_ends_when_its_key_is_no_longer_good(client, door, endless, path, ask, code):
    """In the refusal that a new request would get."""
    key = door.key()
    door.do("find", "none")  # the file is there
    revoking = threading.Timer(0.5, door.do, ("revoke", key.split("_")[1], time.time()))
    revoking.start()
    refused = client.post(path, json=ask, headers=bearer(key))
    revoking.join()
    assert expect_error(refused, 401, code)["message"] == NO_GOOD
    assert refused.headers["www-authenticate"] == 'Bearer realm="huginn"'
    assert endless.acquire(timeout=20)


@pytest.mark.usefixtures("quick_looks")
def test_nothing_ends_because_nobody_can_say_whether_a_key_is_good(client, door, llm, monkeypatch):
    """A store that is away for a moment is no reason to take anybody's answer away."""
    key, looks = door.key(), threading.Semaphore(0)

    async def find(*_):
        looks.release()
        raise KeyStoreUnavailable("Not now.")

    async def script(exchange):
        await exchange.start()
        await exchange.send(FIRST)
        monkeypatch.setattr(SQLiteKeyStore, "find", find)
        for _ in range(3):
            assert await asyncio.to_thread(looks.acquire, timeout=20)
        await exchange.send(DONE)
        await exchange.end()

    llm.script = script
    assert "event: done" in client.post(STREAM, json=ASK, headers={**bearer(key), **EVENTS}).text


def test_scopes_are_kept_apart(client, door):
    """Who may generate may not administer, and the other way round."""
    maker, keeper = door.key(("generate",)), door.key(("admin",))
    expect_error(client.get("/api/admin/usage", headers=bearer(maker)), 403, "forbidden")
    assert (
        "generate" in expect_error(client.post(GENERATE, json=ASK, headers=bearer(keeper)), 403, "forbidden")["message"]
    )
    expect_error(client.post(STREAM, json=ASK, headers=bearer(keeper)), 403, "forbidden")
    assert client.get("/api/admin/usage", headers=bearer(keeper)).status_code == 200
    assert client.get(MODELS, headers=bearer(keeper)).status_code != 403


def test_usage_is_summed_by_key(client, door):
    """Tokens, cached ones, CPU seconds, memory and dollars, for whoever may ask."""
    key, keeper = door.key(), door.key(("admin",))
    for _ in range(2):
        client.post(GENERATE, json=ASK, headers=bearer(key))
    client.post(STREAM, json=ASK, headers=bearer(key))
    body = client.get("/api/admin/usage", headers=bearer(keeper)).json()
    [used] = [each["usage"] for each in body["keys"] if each["id"] == key.split("_")[1]]
    assert (used["requests"], used["prompt_tokens"], used["completion_tokens"]) == (3, 18, 6)
    assert (used["cached_prompt_tokens"], used["cpu_seconds"]) == (12, 0.75)
    assert used["cost_usd"] == pytest.approx(used["gb_seconds"] * 0.0000166667)
    assert used["gb_seconds"] > 0
    assert body["total"]["requests"] >= 3
    listed = client.get("/api/admin/keys", headers=bearer(keeper)).json()["keys"]
    assert {each["id"] for each in listed} == {each["id"] for each in body["keys"]}
    assert "digest" not in listed[0]


def test_every_answer_tells_what_it_cost(client, door, caplog):
    """The whole one, the stream's end, and the log, which names the key by its id and nothing of its text."""
    caplog.set_level("INFO")
    key = door.key()
    whole = client.post(GENERATE, json=ASK, headers=bearer(key)).json()["usage"]
    stream = client.post(STREAM, json=ASK, headers={**bearer(key), "accept": "text/event-stream"}).text
    end = json.loads(stream.split("event: done\ndata: ")[1])["usage"]
    for usage in (whole, end):
        assert (usage["prompt_tokens"], usage["cached_prompt_tokens"], usage["cpu_seconds"]) == (6, 4, 0.25)
        assert usage["gb_seconds"] > 0
        assert usage["cost_usd"] == pytest.approx(usage["gb_seconds"] * 0.0000166667, rel=0.1)
    deadline, told = time.monotonic() + 10, []
    while len(told) < 2:  # a line is written after the answer's last byte
        assert time.monotonic() < deadline
        fields = [getattr(record, "fields", {}) for record in caplog.records]
        told = [each for each in fields if each.get("key_id") == key.split("_")[1]]
    [line] = [each for each in told if each["path"] == GENERATE]
    assert line["gb_seconds"] >= whole["gb_seconds"]
    assert key.split("_")[2] not in f"{told}{caplog.text}"


@pytest.mark.usefixtures("one_minute")
@pytest.mark.parametrize(
    ("path", "left"),
    # A stream's head is sent while it has taken all that it may need: 6 bytes and 50 tokens. A whole answer has used 8.
    [(STREAM, ("44", "944", "2")), (GENERATE, ("92", "992", "3"))],
)
def test_a_quota_is_told_and_kept(client, door, path, left):
    """On every answer what is left; when it is spent, 429 with the time to come back at."""
    key = door.key(quota=Quota(tokens_per_minute=100, tokens_per_day=1000, concurrency=3))
    first = client.post(path, json=ASK, headers=bearer(key))
    assert first.status_code == 200
    assert first.headers["x-ratelimit-limit-tokens"] == "100"
    assert first.headers["x-ratelimit-limit-concurrency"] == "3"
    names = ("tokens", "tokens-day", "concurrency")
    assert tuple(first.headers[f"x-ratelimit-remaining-{name}"] for name in names) == left
    assert re.fullmatch(r"1m|[1-5]?\ds", first.headers["x-ratelimit-reset-tokens"])
    # After it, what it did not need is there again.
    refused = client.post(path, json={**ASK, "max_tokens": 90}, headers=bearer(key))
    error = expect_error(refused, 429, "quota_exceeded")
    assert error["retryable"]
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-ratelimit-remaining-tokens"] == "92"
    never = client.post(path, json={**ASK, "max_tokens": 200}, headers=bearer(key))
    assert not expect_error(never, 429, "quota_exceeded")["retryable"]
    assert "retry-after" not in never.headers
    # OpenAI's clients would send it twice more.
    assert never.headers["x-should-retry"] == "false"
    assert "x-should-retry" not in refused.headers


def test_places_are_free_again_when_a_client_leaves(client, door, llm, signal):
    """Somebody else with the same key is let in then, and not before."""
    key, seen, left = door.key(quota=Quota(concurrency=1)), signal(), signal()

    async def endless(exchange):
        await exchange.start()
        await exchange.send(FIRST)
        seen.give()
        await exchange.until_client_leaves()
        left.give()

    llm.script = endless
    with client.stream("POST", STREAM, json=ASK, headers=bearer(key)):
        assert seen.given()
        refused = client.post(STREAM, json=ASK, headers=bearer(key))
        expect_error(refused, 429, "quota_exceeded")
        assert refused.headers["retry-after"] == "1"
    assert left.given()
    llm.script = answers
    deadline = time.monotonic() + 10
    while client.post(STREAM, json=ASK, headers=bearer(key)).status_code == 429:
        assert time.monotonic() < deadline


BROKEN_OFF = [
    (STREAM, ASK),
    (GENERATE, ASK),
    ("/v1/completions", {**ASK, "model": "muninn-char"}),
    ("/v1/completions", {**ASK, "model": "muninn-char", "stream": True}),
    ("/v1/completions", {**ASK, "model": "muninn-char", "n": 3}),
]


@pytest.mark.parametrize(("path", "ask"), BROKEN_OFF)
@pytest.mark.parametrize(
    ("how", "told", "tokens"), [("client leaves", b"", 6), ("client leaves", FIRST, 7), ("time is up", b"", 6)]
)
@undisturbed
def test_what_is_broken_off_is_paid_for(client, door, llm, how, told, tokens, path, ask):
    """The prompt, and each token that was made, whether the answer was a stream or would have come whole."""
    key, sent = door.key(quota=Quota(tokens_per_day=10_000)), threading.Semaphore(0)

    async def endless(exchange):
        await exchange.start()
        await exchange.send(told)
        sent.release()
        await exchange.until_client_leaves()

    async def leave(headers):
        async with httpx.AsyncClient(base_url=client.base_url, timeout=20) as leaving:
            asking = asyncio.create_task(leaving.post(path, json=ask, headers=headers))
            for _ in range(ask.get("n", 1)):
                assert await asyncio.to_thread(sent.acquire, timeout=20)
            await asyncio.sleep(0.1)  # until the backend has read it
            asking.cancel()

    llm.script = endless
    if how == "client leaves":
        asyncio.run(leave(bearer(key)))
    else:
        response = client.post(path, json=ask, headers={**bearer(key), "x-huginn-timeout-s": "0.2"})
        assert response.status_code == 504
    deadline = time.monotonic() + 10
    while not (used := door.do("totals", [f"key:{key.split('_')[1]}"])[0]).requests:
        assert time.monotonic() < deadline
    assert used.tokens == tokens * ask.get("n", 1)
    assert used.gb_seconds > 0


@pytest.mark.parametrize(
    ("path", "ask", "end"),
    [
        (STREAM, ASK, "event: done"),
        ("/v1/completions", {**ASK, "model": "muninn-char", "stream": True}, "data: [DONE]"),
    ],
)
def test_a_place_is_free_when_the_end_is_told(client, door, monkeypatch, path, ask, end):
    """Who reads the end, and begins again at once, is let in, however long the store takes."""
    settle = SQLiteKeyStore.settle

    async def settle_slowly(self, *arguments):
        await asyncio.sleep(0.1)
        return await settle(self, *arguments)

    monkeypatch.setattr(SQLiteKeyStore, "settle", settle_slowly)
    headers = {**bearer(door.key(quota=Quota(concurrency=1))), "accept": "text/event-stream"}
    for _ in range(2):
        with client.stream("POST", path, json=ask, headers=headers) as response:
            assert response.status_code == 200
            for line in response.iter_lines():
                if end in line:
                    break


@pytest.mark.usefixtures("one_minute")
def test_the_page_s_session_is_let_in(client, llm):
    """Without a key, by its cookie, with a quota of its own; two readers do not share one."""
    response = client.post(STREAM, json=ASK, headers=session())
    assert response.text == " Ra"
    assert response.headers["x-ratelimit-limit-tokens"] == "100"
    assert llm.exchanges[0].headers["x-huginn-client"] == "session:AAECAwQFBgcICQoLDA0ODw"
    assert client.post(GENERATE, json=ASK, headers=session()).status_code == 200
    assert client.post(GENERATE, json={**ASK, "max_tokens": 94}, headers=session()).status_code == 429
    other = session("BAECAwQFBgcICQoLDA0ODw", secret="another one, which is being replaced")
    assert client.post(GENERATE, json={**ASK, "max_tokens": 94}, headers=other).status_code == 200


def test_who_loads_the_page_anew_has_no_more_of_what_all_share(backend_with, door, llm):
    """Each session has a quota of its own, and all together have one; programs with keys are none of them."""
    llm.script = answers
    settings = Settings(
        llm_url=llm.stream_url,
        auth="on",
        host="",
        key_store=door.store_name,
        session_secrets=(SECRET,),
        all_sessions_tokens_per_day=100,
    )
    with backend_with(settings) as client:
        told = [client.post(STREAM, json=ASK, headers=session(f"{number:022}")) for number in range(8)]
        # Each may need 56 tokens and uses 8: with 48 used there are too few.
        assert [each.status_code for each in told] == [200] * 6 + [429] * 2
        error = expect_error(told[-1], 429, "shared_quota_exceeded")
        assert "All visitors of the page together share a quota" in error["message"]
        assert error["retryable"]
        assert int(told[-1].headers["retry-after"]) > 0
        assert told[-1].headers["x-ratelimit-remaining-tokens-day"] == "52"
        less = client.post(STREAM, json={**ASK, "max_tokens": 40}, headers=session(f"{7:022}"))
        assert less.status_code == 200
        assert client.post(STREAM, json=ASK, headers=bearer(door.key())).status_code == 200


def test_a_session_that_is_over_or_forged_is_not(client):
    """Whoever has it is told to load the page again."""
    for cookie in (session(lasts_s=-1), session(secret="x" * 32)):
        assert (
            "Load the page"
            in expect_error(client.post(STREAM, json=ASK, headers=cookie), 401, "unauthenticated")["message"]
        )


def test_a_bad_key_is_not_made_good_by_a_session(client):
    """Who sends a key means it."""
    response = client.post(STREAM, json=ASK, headers={**session(), **bearer(mint(bytes(38))[1])})
    expect_error(response, 401, "unauthenticated")


def test_sessions_open_no_other_doors(client, llm):
    """What is for programs, and what is for administrators, takes keys alone."""
    expect_error(client.get("/api/admin/usage", headers=session()), 403, "forbidden")
    assert client.get("/v1/models", headers=session()).status_code == 401
    assert client.post("/v1/completions", json=ASK, headers=session()).status_code == 401
    assert llm.exchanges == []


@pytest.mark.usefixtures("one_minute")
def test_clients_of_openai_s_are_known_by_the_same_keys(client, door):
    """And counted by the same quota, and told of it in its headers."""
    key = door.key(quota=Quota(tokens_per_minute=100))
    ask = {"model": "muninn-char", "prompt": "ROMEO:", "max_tokens": 50}
    first = client.post("/v1/completions", json=ask, headers=bearer(key))
    assert (first.status_code, first.headers["x-ratelimit-remaining-tokens"]) == (200, "92")
    refused = client.post("/v1/completions", json={**ask, "max_tokens": 90}, headers=bearer(key))
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert refused.headers["x-ratelimit-remaining-tokens"] == "92"
    assert 1 <= int(refused.headers["retry-after"]) <= 60


def test_without_a_store_there_are_sessions_and_no_keys(backend_with, llm):
    """Quotas are kept in memory then."""
    llm.script = answers
    settings = Settings(llm_url=llm.stream_url, auth="on", host="", session_secrets=(SECRET,))
    with backend_with(settings) as client:
        assert client.post(STREAM, json=ASK, headers=session()).headers["x-ratelimit-limit-tokens"] == "40000"
        _, key = mint(bytes(38))
        response = client.post(STREAM, json=ASK, headers={"authorization": f"Bearer {key}"})
        expect_error(response, 401, "unauthenticated")


def test_a_store_that_is_away_is_a_503(backend_with, llm, tmp_path):
    """Nobody is let in whom nobody knows, and nobody is told that they are unknown."""
    (tmp_path / "keys.sqlite").write_bytes(b"not SQLite's" * 1000)
    settings = Settings(llm_url=llm.stream_url, auth="on", host="", key_store=f"sqlite:{tmp_path / 'keys.sqlite'}")
    with backend_with(settings) as client:
        _, key = mint(bytes(38))
        response = client.post(STREAM, json=ASK, headers={"authorization": f"Bearer {key}"})
        assert expect_error(response, 503, "key_store_unavailable")["retryable"]
        assert response.headers["retry-after"] == "2"
    assert llm.exchanges == []


def test_the_cloud_s_store_serves_as_well(backend_with, llm, monkeypatch):
    """With one write before the first token and one after the last; whose a key is, is asked once in a while."""
    asked = []
    ask_table = DynamoDB._ask

    async def noted(self, operation, *arguments, **named):
        asked.append((operation, len(llm.exchanges)))
        return await ask_table(self, operation, *arguments, **named)

    llm.script = answers
    with dynamodb_server() as environ, monkeypatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        key_id, text = mint(bytes(range(38)))
        key = Key(key_id, "a", digest_of(text), frozenset({"generate"}), time.time(), Quota(tokens_per_minute=100))
        name = f"dynamodb:{TABLE}"
        asyncio.run(key_store_named(name, REGION, environ).add(key))
        patch.setattr(DynamoDB, "_ask", noted)
        settings = Settings(llm_url=llm.stream_url, auth="on", host="", key_store=name, aws_region=REGION)
        with backend_with(settings) as client:
            for _ in range(2):
                response = client.post(STREAM, json=ASK, headers={"authorization": f"Bearer {text}"})
                assert (response.text, response.headers["x-ratelimit-limit-tokens"]) == (" Ra", "100")
    assert asked == [
        ("GetItem", 0), ("UpdateItem", 0), ("UpdateItem", 1),
        ("UpdateItem", 1), ("UpdateItem", 2),
    ]  # fmt: skip


@pytest.mark.parametrize("path", ["/api/llm/stream", "/v1/completions", "/tokenize"])
def test_no_header_is_too_odd(client, door, path):
    """Bytes that are not ASCII are refused or let pass, and never a failure of ours."""
    odd = ("accept", "authorization", "content-type", "cookie", "traceparent", "tracestate", "x-request-id")
    for name in (*odd, "x-huginn-timeout-s", "origin"):
        for value in (b"\xe9", b"huginn_session=\xe9", b"Bearer \xe9\xff"):
            headers = [(b"content-type", b"application/json"), (name.encode(), value)]
            assert client.post(path, content=b"{}", headers=headers).status_code < 500
