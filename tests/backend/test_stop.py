"""A process that is told to stop with streams under way: what these have used is kept, and their places are free."""

import asyncio
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT

import pytest
import yaml

from functions.backend.adapters.key_stores import key_store_named
from functions.backend.app import ENDS_WITHIN_S, build_app
from functions.backend.application.metering import Metering
from functions.backend.domain.account import PLACE_S, Place
from functions.backend.domain.errors import QuotaExceeded
from functions.backend.domain.key import Key, digest_of, mint
from functions.backend.domain.quota import Quota
from functions.backend.settings import Settings
from functions.backend.telemetry.spans import _STOP_S as SPANS_WITHIN_S
from local.serve import CLOSING_S, GRACE_S
from local.up import STOP_WITHIN_S
from tests.backend.conftest import PATIENCE_S, connect
from tests.backend.key_store_server import REGION, TABLE, dynamodb_server

ROOT = Path(__file__).parents[2]
# Of each kind of stream so many; the other kind has two texts.
STREAMS = 4
QUOTA = Quota(concurrency=50)
SERVER = """
import socket, uvicorn
from functions.backend import app as backend
from functions.backend.handler import app
from local.tiers import HTTP_PROTOCOL

backend.ENDS_WITHIN_S = 30.0  # whatever this machine does meanwhile
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
config = uvicorn.Config(app, http=HTTP_PROTOCOL, log_config=None, ws="none", timeout_graceful_shutdown=1)
uvicorn.Server(config).run(sockets=[listener])
"""
TOKENS = b'event: token\ndata: {"i":6,"id":1,"text":" Ra"}\n\nevent: token\ndata: {"i":7,"id":2,"text":"ven"}\n\n'
KEY_ID, KEY = mint(bytes(38))


@pytest.fixture(params=["sqlite", "dynamodb"])
def environ(request, tmp_path):
    """The variables that name an empty store."""
    if request.param == "sqlite":
        yield {"KEY_STORE": f"sqlite:{tmp_path / 'keys.sqlite'}", "AWS_REGION": REGION}
    else:
        with dynamodb_server() as given:
            yield {**given, "KEY_STORE": f"dynamodb:{TABLE}"}


def ask(environ, work):
    """What the work gives with the store that these variables name."""

    async def run():
        store = key_store_named(environ["KEY_STORE"], REGION, environ)
        try:
            return await work(store)
        finally:
            await store.aclose()

    return asyncio.run(run())


@contextmanager
def serving(environ):
    """A process of its own, and where it is reached."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER], env=environ, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, text=True
    )
    try:
        yield process, f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.communicate()


async def goes_on(exchange):
    """Two tokens, and no end."""
    await exchange.start()
    await exchange.send(TOKENS)
    await exchange.until_client_leaves()


def test_a_stop_keeps_what_running_streams_have_used(llm, environ):
    """To the token, of all that it cuts off; whoever starts it again finds every place free."""
    llm.script = goes_on
    key = Key(KEY_ID, "raven", digest_of(KEY), frozenset({"generate"}), time.time(), QUOTA)
    assert ask(environ, lambda store: store.add(key))
    settings = {"HUGINN_AUTH": "on", "LLM_URL": llm.stream_url, "PYTHONPATH": str(ROOT), "LOG_LEVEL": "warning"}
    with serving(environ | settings) as (process, url), ThreadPoolExecutor(2 * STREAMS) as readers:

        def read(path, asked, mark):
            """Give what is read from when both of its tokens, twice for two texts, are there."""
            with connect(url) as client, client.stream("POST", path, json=asked, headers=headers) as response:
                lines = response.iter_lines()
                for _ in range(2 * asked.get("n", 1)):
                    next(line for line in lines if mark in line)
                yield
                yield list(lines)

        headers = {"authorization": f"Bearer {KEY}", "accept": "text/event-stream"}
        asked = {"prompt": "ROMEO:", "max_tokens": 50}
        native = ("/api/llm/stream", asked, '"text"')
        openai = ("/v1/completions", {**asked, "model": "m", "stream": True, "n": 2}, '"text"')
        streams = [read(*each) for each in (native, openai) * STREAMS]
        assert list(readers.map(next, streams)) == [None] * len(streams)
        process.terminate()
        ends = list(readers.map(next, streams))
        log = process.communicate(timeout=PATIENCE_S)[0]
    # Each was cut off, and told so in full.
    assert all("not_ready" in "".join(end) for end in ends)
    assert "could not be kept" not in log
    [used] = ask(environ, lambda store: store.totals([key.principal.account]))
    texts = STREAMS * (1 + 2)
    assert (used.requests, used.prompt_tokens, used.completion_tokens) == (len(streams), 6 * texts, 2 * texts)
    now = time.time()
    mine = Place.at(now, "mine", 0, 60)
    account = ask(environ, lambda store: store.reserve(key.principal.account, QUOTA, mine, now))
    assert list(account.places) == ["mine"]


def test_a_killed_process_holds_no_place_for_long(llm, environ):
    """Nobody gives it back then, and it was not renewed: its time is over as soon as a renewal's would be."""
    llm.script = goes_on
    quota = Quota(tokens_per_day=100, concurrency=1)
    key = Key(KEY_ID, "raven", digest_of(KEY), frozenset({"generate"}), time.time(), quota)
    assert ask(environ, lambda store: store.add(key))
    settings = {"HUGINN_AUTH": "on", "LLM_URL": llm.stream_url, "PYTHONPATH": str(ROOT), "LOG_LEVEL": "warning"}
    asked = {"prompt": "ROMEO:", "max_tokens": 50}
    headers = {"authorization": f"Bearer {KEY}", "accept": "text/event-stream"}
    with (
        serving(environ | settings) as (process, url),
        connect(url) as client,
        client.stream("POST", "/api/llm/stream", json=asked, headers=headers) as response,
    ):
        next(line for line in response.iter_lines() if "text" in line)
        process.kill()

    def reserve(now):
        mine = Place.at(now, "mine", 0)
        return ask(environ, lambda store: store.reserve(key.principal.account, quota, mine, now))

    now = time.time()
    with pytest.raises(QuotaExceeded, match="1 requests are running"):
        reserve(now)
    account = reserve(now + PLACE_S)
    assert list(account.places) == ["mine"]
    # What it had taken is there again: nobody knows what was used.
    assert account.limits(quota, now + PLACE_S)[0].remaining == 100


def test_a_store_that_hangs_holds_no_stop_up(monkeypatch, caplog):
    """It is waited for, and not for ever; what is lost is said."""

    async def hang(_):
        await asyncio.Event().wait()

    async def run():
        app = build_app(Settings())
        async with app.router.lifespan_context(app):
            pass

    monkeypatch.setattr(Metering, "settled", hang)
    monkeypatch.setattr("functions.backend.app.ENDS_WITHIN_S", 0.01)
    asyncio.run(run())
    assert "what they have used may be lost" in caplog.text


def test_there_is_time_for_it():
    """What every step of a stop may take is less, all together, than when who waits for it loses his patience."""
    # uvicorn looks round for a tenth of a second first, and the metrics' server for half a one.
    closing_s = 0.1 + 0.5 + ENDS_WITHIN_S + SPANS_WITHIN_S
    [grace] = re.findall(r'"--timeout-graceful-shutdown", "(\d+)"', (ROOT / "functions/backend/Dockerfile").read_text())
    compose = yaml.safe_load((ROOT / "local/compose.yml").read_text("utf-8"))
    assert int(grace) + closing_s < int(compose["services"]["backend"]["stop_grace_period"].removesuffix("s"))
    assert closing_s < CLOSING_S
    assert GRACE_S + closing_s < STOP_WITHIN_S
