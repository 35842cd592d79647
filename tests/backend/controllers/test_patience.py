"""Readers who stall, clients who send too much, time that is up, and other sites' pages."""

import asyncio
import json
import socket
import time
from contextlib import closing

import pytest

from functions.backend import app
from functions.backend.app import MAX_BODY_BYTES, build_app
from functions.backend.settings import Settings, SettingsError
from tests.undisturbed import undisturbed

PROMPT = {"prompt": "ROMEO:"}
# Longer than any pause of the machine; one event of this size, and a socket's buffers are soon full.
TEXT = "x" * 4000
FLOOD = f'event: token\ndata: {{"i":6,"id":1,"text":"{TEXT}"}}\n\n'.encode()


def stalled(url, path="/api/llm/stream", accept="text/event-stream"):
    """A connection that has asked, and whose reader takes next to nothing."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(15)
    connection.connect((host, int(port)))
    body = b'{"prompt":"a","max_tokens":4096}'
    if path.endswith("/v1/completions"):
        body = b'{"model":"m","prompt":"a","stream":true}'
    head = f"POST {path} HTTP/1.1\r\nhost: h\r\naccept: {accept}\r\ncontent-type: application/json\r\n"
    connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def rest(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    said = bytearray()
    while piece := connection.recv(1 << 20):
        said += piece
        if said.endswith(b"0\r\n\r\n"):
            break
    return bytes(said)


@pytest.fixture
def endless(llm, signal):
    """A model service that says far more than any buffer holds, and knows when it is told to stop."""
    left = signal()

    class Watched:
        """How much it was let say."""

        sent = 0

    async def counting(exchange):
        await exchange.start()
        send = exchange._send

        async def hears_the_end():
            await exchange.until_client_leaves()
            left.give()

        listening = asyncio.create_task(hears_the_end())
        while not listening.done():
            await send({"type": "http.response.body", "body": FLOOD, "more_body": True})
            Watched.sent += len(FLOOD)
            await asyncio.sleep(0)
        await listening

    llm.script = counting
    return left, Watched


@pytest.mark.parametrize("path", ["/api/llm/stream", "/v1/completions", "/models/m/v1/completions"])
def test_a_reader_who_stalls_ends_the_generation_and_hears_so(llm, endless, backend_with, path, monkeypatch, caplog):
    """What is kept for it is bounded; an error is the last event, in the words of the API that was asked."""
    # Whoever is waited for is not pinged: that would begin the wait anew, and for ever.
    monkeypatch.setattr("functions.backend.controllers.openai.chunk_response.PING_S", 0.1)
    left, said = endless
    with backend_with(Settings(llm_url=llm.stream_url, reader_timeout_s=0.4)) as client:
        with closing(stalled(str(client.base_url).rstrip("/"), path)) as connection:
            assert left.given()
            # 40 bytes a token: what the systems' buffers on the way hold, and nothing that grows with time.
            assert said.sent < 30_000_000
            end = rest(connection)
        assert end.endswith(b"0\r\n\r\n")
        assert end.count(b'"slow_reader"') == 1
        assert "failed" not in caplog.text
        last = end.rsplit(b"\n\n", 2)[-2]
        assert (b"event: error\ndata: " in last) == (path == "/api/llm/stream")
        assert client.get("/livez").status_code == 200


@undisturbed
def test_a_slow_reader_is_no_stalled_one(llm, backend_with):
    """Who takes a little now and then has all of it in the end."""
    llm.script = lambda exchange: exchange.answer(
        FLOOD * 500
        + b'event: done\ndata: {"finish_reason":"stop","usage":{"prompt_tokens":6,"completion_tokens":1,'
        + b'"total_tokens":7},"seed":42,"model":"m"}\n\n'
    )
    with backend_with(Settings(llm_url=llm.stream_url, reader_timeout_s=0.6)) as client:
        with closing(stalled(str(client.base_url).rstrip("/"))) as connection:
            said, pauses = bytearray(), 0
            while not said.endswith(b"0\r\n\r\n"):
                said += connection.recv(1 << 18)
                if pauses < 8:
                    pauses += 1
                    time.sleep(0.15)
        assert b"event: done" in said
        assert said.count(b"event: token") == 500


def test_a_request_has_a_longest_time_whatever_it_asks_for(llm, backend_with):
    """The model service is told of it, too."""
    llm.script = lambda exchange: exchange.until_client_leaves()
    with backend_with(Settings(llm_url=llm.stream_url, request_timeout_s=0.4)) as client:
        for headers in ({}, {"x-huginn-timeout-s": "600"}):
            for path in ("/api/llm/stream", "/api/llm/generate"):
                response = client.post(path, json=PROMPT, headers=headers)
                assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert max(float(exchange.headers["x-huginn-timeout-s"]) for exchange in llm.exchanges) <= 0.4


POSTS = sorted(
    path
    for path, methods in build_app(Settings()).openapi()["paths"].items()
    if "requestBody" in methods.get("post", {})
)


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "in chunks"])
@pytest.mark.parametrize("path", POSTS)
def test_no_route_takes_a_body_that_is_too_large(backend, path, announced):
    """413, wherever it is sent and whether its length is said or not; the model service never hears of it."""
    body = b'{"prompt": "' + b"x" * MAX_BODY_BYTES + b'"}'
    content = body if announced else (body[at : at + 65536] for at in range(0, len(body), 65536))
    response = backend.post(path, content=content, headers={"content-type": "application/json"})
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "body_too_large"


@pytest.mark.parametrize("path", POSTS)
def test_no_route_waits_for_a_body_for_ever(backend_with, llm, monkeypatch, path):
    """408, and then the connection is no more; the model service never hears of it."""
    monkeypatch.setattr(app, "BODY_WITHIN_S", 0.1)
    with backend_with(Settings(llm_url=llm.stream_url)) as client:
        address = client.base_url.host, client.base_url.port
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(f"{head}content-length: 20\r\n\r\n{{".encode())
            with connection.makefile("rb") as answer:
                whole = answer.read()  # up to the end of the connection
        head, _, body = whole.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert b"\r\nconnection: close" in head
    error = json.loads(body)["error"]
    assert error["code"] == "request_timeout"
    assert error.get("retryable", True)
    assert llm.exchanges == []


PREFLIGHT = {"origin": "https://raven.example", "access-control-request-method": "POST"}
PREFLIGHT |= {"access-control-request-headers": "authorization,content-type,x-stainless-lang"}


def test_other_sites_pages_are_kept_out_unless_named(llm, backend, backend_with):
    """Closed by default; open to those that CORS_ORIGINS names, who may read what tells of limits."""
    assert backend.options("/api/llm/stream", headers=PREFLIGHT).status_code == 405
    closed = backend.get("/livez", headers={"origin": "https://raven.example"})
    assert not [name for name in closed.headers if name.startswith("access-control")]
    with backend_with(Settings(llm_url=llm.stream_url, cors_origins=("https://raven.example",))) as client:
        answer = client.options("/v1/completions", headers=PREFLIGHT | {"x-request-id": "asked-first"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (200, "asked-first")
        assert answer.headers["access-control-allow-origin"] == "https://raven.example"
        assert "authorization" in answer.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in answer.headers
        # A refusal can be read as well, or nobody would know why.
        refused = client.post("/api/llm/stream", headers={"origin": "https://raven.example"})
        assert refused.status_code == 415
        assert refused.headers["access-control-allow-origin"] == "https://raven.example"
        exposed = set(refused.headers["access-control-expose-headers"].split(", "))
        assert {"x-ratelimit-remaining-tokens", "retry-after", "x-request-id", "x-should-retry"} <= exposed
        unknown = client.options("/v1/completions", headers=PREFLIGHT | {"origin": "https://crow.example"})
        assert unknown.status_code == 400
        assert unknown.headers["x-request-id"]
        other = client.get("/livez", headers={"origin": "https://crow.example"})
        assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("text", ["raven.example", "https://raven.example/", "https://a.example https://b.example"])
def test_an_origin_that_is_none_stops_the_start(text):
    """A path or a missing scheme would never match."""
    with pytest.raises(SettingsError, match="CORS_ORIGINS"):
        Settings.from_env({"CORS_ORIGINS": text, "HUGINN_AUTH": "off", "HUGINN_HOST": "127.0.0.1"})


def test_origins_are_read_from_the_environment():
    """Several with commas between."""
    environ = {"CORS_ORIGINS": "https://a.example, http://localhost:3000", "HUGINN_AUTH": "off"}
    settings = Settings.from_env(environ | {"HUGINN_HOST": "127.0.0.1"})
    assert settings.cors_origins == ("https://a.example", "http://localhost:3000")


def test_a_body_that_announces_too_much_is_not_waited_for(backend_with, llm):
    """413 at its head: nothing of it has come, and nothing need."""
    with backend_with(Settings(llm_url=llm.stream_url)) as client:
        address = client.base_url.host, client.base_url.port
        head = "POST /api/llm/stream HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(f"{head}content-length: {app.MAX_BODY_BYTES + 1}\r\n\r\n".encode())
            assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")
    assert llm.exchanges == []
