"""The relay passes on what the backend says, when it says it, and ends as the backend ended."""

import json
import socket
import time
from dataclasses import replace

import httpx
import pytest

from functions.frontend import request_body
from functions.frontend.app import build_app
from functions.frontend.settings import Settings
from tests.frontend.fake_backend import PATIENCE_S, Pace, Script, as_error, as_json, done_event, stream, token_events
from tests.frontend.loopback import serve, serve_frontend
from tests.unused_ports import unused_address

ASK = {"prompt": "Once upon a midnight", "max_tokens": 3}


def test_chunks_arrive_when_the_backend_sends_them(backend, client):
    """The backend says each event only after the reader has the one before; nothing is lost or changed."""
    pace = Pace()
    script = stream([" a", " raven", " “spoke”"], pace=pace)
    unbuffered = {**script.headers, "x-accel-buffering": "no", "vary": "accept"}
    backend.scripts["/api/llm/stream"] = replace(script, headers=unbuffered)
    with client.stream("POST", "/api/llm/stream", json=ASK, headers={"accept": "text/event-stream"}) as response:
        assert {name: response.headers[name] for name in unbuffered} == unbuffered
        pieces = response.iter_raw()
        for chunk in script.chunks:
            pace.allow()
            assert next(pieces) == chunk
        assert next(pieces, None) is None


def test_the_request_arrives_as_it_was_sent(backend, client):
    """The body is passed on byte for byte, with what the backend needs to read it, and nothing of the browser's."""
    body = b'{"prompt": "n\xc3\xa9e",   "seed": 9223372036854775807}'
    headers = {
        "content-type": "application/json", "accept": "text/event-stream", "x-request-id": "raven-1",
        "cookie": "secret=1; huginn_session=v1.a-_b.c; more=2", "x-amz-content-sha256": "00",
        "authorization": "Bearer hgn_1", "x-huginn-timeout-s": "7.5", "x-huginn-client": "wolf",
    }  # fmt: skip
    client.post("/api/llm/stream", content=body, headers=headers)
    assert backend.last.body == body
    assert backend.last.headers["accept"] == "text/event-stream"
    assert backend.last.headers["content-type"] == "application/json"
    assert backend.last.headers["x-request-id"] == "raven-1"
    assert backend.last.headers["cookie"] == "huginn_session=v1.a-_b.c"
    assert backend.last.headers["authorization"] == "Bearer hgn_1"
    assert backend.last.headers["x-huginn-timeout-s"] == "7.5"
    assert not {"x-huginn-client", "x-amz-content-sha256"} & set(backend.last.headers)


@pytest.mark.parametrize("cookie", ["", "secret=1", 'huginn_session="a\\012x-evil: 1"', f"huginn_session={'a' * 513}"])
def test_no_other_cookie_is_passed_on(backend, client, cookie):
    """Nor one that could not be ours, whatever a parser of cookies makes of it."""
    client.get("/api/llm/models", headers={"cookie": cookie})
    assert "cookie" not in backend.last.headers
    assert "x-evil" not in backend.last.headers


def test_what_is_left_of_a_quota_is_told(backend, client):
    """The headers that OpenAI's clients read, and how a key is asked for."""
    told = {"x-ratelimit-remaining-tokens": "12", "x-ratelimit-reset-tokens": "1m2s", "www-authenticate": "Bearer"}
    script = as_error(429, "quota_exceeded", "Enough.", retryable=True)
    backend.scripts["/api/llm/stream"] = replace(script, headers={**script.headers, **told, "retry-after": "62"})
    headers = client.post("/api/llm/stream", json=ASK).headers
    assert {name: headers[name] for name in (*told, "retry-after")} == {**told, "retry-after": "62"}


@pytest.mark.parametrize("path", ["/api/llm/stream", "/api/llm/generate"])
def test_an_error_keeps_its_status_words_and_advice(backend, client, path):
    """The backend's error is the client's: status, body, Retry-After, request id."""
    script = as_error(503, "queue_full", "The queue is full.", retryable=True)
    headers = {**script.headers, "retry-after": "3", "x-request-id": "made-by-backend", "server": "secret/1.0"}
    backend.scripts[path] = Script(script.status, headers, script.chunks)
    response = client.post(path, json=ASK)
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "queue_full"
    assert response.headers["retry-after"] == "3"
    assert response.headers["x-request-id"] == "made-by-backend"
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers.get("server") != "secret/1.0"


def test_models_are_relayed(backend, client):
    """The page's chooser reads what the backend lists."""
    backend.scripts["/api/llm/models"] = as_json({"models": [{"name": "muninn"}]})
    assert client.get("/api/llm/models").json() == {"models": [{"name": "muninn"}]}
    assert backend.last.method == "GET"


def test_a_broken_stream_is_broken_for_the_client_too(backend, client):
    """What came before the break arrives; then the transfer fails, and does not seem to have ended."""
    backend.scripts["/api/llm/stream"] = Script(
        200, {"content-type": "text/event-stream"}, token_events([" a", " raven"]), breaks=True
    )
    received: list[bytes] = []
    with client.stream("POST", "/api/llm/stream", json=ASK) as response, pytest.raises(httpx.RemoteProtocolError):
        received.extend(response.iter_raw())
    assert b"".join(received).count(b"event: token") == 2
    assert client.get("/livez").json() == {"status": "ok"}


def test_a_client_who_leaves_between_chunks_ends_the_backends_work(backend, client):
    """Closing the page closes the request to the backend, long before its next token."""
    backend.scripts["/api/llm/stream"] = stream([" a"] * 100, gap_s=0.2)
    with client.stream("POST", "/api/llm/stream", json=ASK) as response:
        next(response.iter_raw())
    assert backend.client_left.wait(PATIENCE_S)


@pytest.mark.parametrize(
    ("path", "content_type", "body"),
    [
        ("/api/llm/stream", "application/json", '{"prompt": "a"}'),
        ("/api/llm/generate", "application/json", '{"prompt": "a"}'),
        ("/", "application/x-www-form-urlencoded", "prompt=a"),
    ],
    ids=["stream", "generate", "form"],
)
def test_a_client_who_leaves_before_the_answer_ends_the_backends_work(backend, client, path, content_type, body):
    """Also while the backend has not said anything yet, as when the request waits in a queue."""
    for waiting in ("/api/llm/stream", "/api/llm/generate"):
        backend.scripts[waiting] = Script(200, {}, [b"{}"], silence_s=2 * PATIENCE_S)
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=PATIENCE_S) as connection:
        head = (
            f"POST {path} HTTP/1.1\r\nhost: here\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        connection.sendall((head + body).encode())
        assert backend.asked.wait(PATIENCE_S)
    assert backend.client_left.wait(PATIENCE_S)


def test_a_backend_that_is_down_is_said_in_words():
    """502, with what to do; and the page still comes."""
    address = unused_address()
    with serve_frontend(address) as url, httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        for response in (client.post("/api/llm/stream", json=ASK), client.get("/api/llm/models")):
            error = response.json()["error"]
            assert response.status_code == 502
            assert (error["code"], error["field"], error["retryable"]) == ("backend_unavailable", None, True)
            assert address in error["message"]
            assert "BACKEND_URL" in error["message"]
        assert client.get("/").status_code == 200
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").json()["error"]["code"] == "not_ready"


def test_a_backend_that_says_nothing_is_given_up(backend):
    """504, after the time that the settings allow."""
    backend.scripts["/api/llm/stream"] = Script(200, {}, [b"late"], silence_s=30)
    with serve_frontend(backend.url, timeout_s=0.3) as url, httpx.Client(base_url=url, trust_env=False) as client:
        response = client.post("/api/llm/stream", json=ASK)
        assert response.status_code == 504
        assert response.json()["error"]["code"] == "backend_timeout"
    assert backend.client_left.wait(PATIENCE_S)


def test_readiness_is_the_backends(backend, client):
    """Ready means that a prompt would be answered, not only that this process runs."""
    assert client.get("/readyz").json() == {"status": "ready"}
    backend.scripts["/readyz"] = as_error(503, "not_ready", "The model is not loaded.")
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.headers["retry-after"]


def test_readiness_does_not_wait_for_long(backend):
    """A probe has a deadline of its own, far shorter than the silence that is allowed to a generation."""
    backend.scripts["/readyz"] = replace(as_json({"status": "ready"}), silence_s=2 * PATIENCE_S)
    with serve(build_app(Settings(backend.url, 2 * PATIENCE_S, 0.2))) as url:
        assert httpx.get(f"{url}/readyz", timeout=PATIENCE_S, trust_env=False).status_code == 503


def test_who_leaves_while_sending_is_no_failure_of_ours(client, caplog):
    """The log is for what somebody can mend."""
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=PATIENCE_S) as connection:
        connection.sendall(b"POST /api/llm/stream HTTP/1.1\r\nhost: here\r\ncontent-length: 9\r\n\r\n{")
        assert client.get("/livez").status_code == 200
    deadline = time.monotonic() + 0.5
    while not caplog.records and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_too_large_is_refused(backend, client, announced):
    """413 in words, whether the length was announced or the body came in chunks; the backend never hears of it."""
    body = b'{"prompt": "' + b"x" * 1_000_000 + b'"}'
    content = body if announced else (body[at : at + 65536] for at in range(0, len(body), 65536))
    response = client.post("/api/llm/stream", content=content)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "body_too_large"
    assert backend.requests == []


def test_a_body_up_to_the_limit_is_passed_on(backend, client):
    """One million bytes are still fine."""
    body = b'{"prompt": "' + b"x" * (1_000_000 - 14) + b'"}'
    assert len(body) == 1_000_000
    assert client.post("/api/llm/stream", content=body).status_code == 200
    assert backend.last.body == body


def test_a_body_that_never_ends_costs_no_more_than_the_limit(client):
    """The answer comes while the client still sends."""
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=10) as connection:
        connection.sendall(b"POST /api/llm/stream HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(17):
            connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        assert connection.recv(12) == b"HTTP/1.1 413"


ODD = (
    "accept",
    "accept-language",
    "authorization",
    "content-type",
    "cookie",
    "sec-fetch-site",
    "traceparent",
    "tracestate",
)


@pytest.mark.parametrize("name", [*ODD, "x-huginn-authorization", "x-request-id", "x-huginn-timeout-s"])
@pytest.mark.parametrize(("method", "path"), [("POST", "/api/llm/stream"), ("GET", "/"), ("GET", "/api/llm/models")])
def test_no_header_is_too_odd(client, method, path, name):
    """Bytes that are not ASCII are passed on or refused, and never a failure of ours."""
    for value in (b"\xe9", b"huginn_session=\xe9", b"Bearer \xe9\xff"):
        assert client.request(method, path, headers={name: value}).status_code < 500


@pytest.mark.parametrize("path", ["/api/llm/stream", "/api/llm/generate", "/"])
def test_nobody_waits_for_a_body_for_ever(client, backend, monkeypatch, path):
    """408, and then the connection is no more; the backend never hears of it."""
    monkeypatch.setattr(request_body, "BODY_WITHIN_S", 0.1)
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-www-form-urlencoded\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=10) as connection:
        connection.sendall(f"{head}content-length: 20\r\n\r\n{{".encode())
        with connection.makefile("rb") as answer:
            whole = answer.read()  # up to the end of the connection
    head, _, body = whole.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"\r\nconnection: close" in head
    assert b"0.1 s" in body
    assert [request.path for request in backend.requests if request.method == "POST"] == []


@pytest.mark.parametrize(("method", "path"), [("GET", "/api/llm/stream"), ("POST", "/livez"), ("DELETE", "/")])
def test_a_wrong_method_is_said_in_words(client, method, path):
    """405 names what would work."""
    response = client.request(method, path)
    assert response.status_code == 405
    assert response.json()["error"]["code"] == "method_not_allowed"
    assert response.headers["allow"]


@pytest.mark.parametrize(
    "path", ["/nowhere", "/api/llm/nowhere", "/docs", "/static/x/../settings.py", "/static/x/no.js"]
)
def test_what_is_not_there_is_said_in_words(client, path):
    """404, as the same JSON as every other error."""
    response = client.get(path)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


def test_streams_do_not_wait_for_each_other(backend, client):
    """While one answer goes on, others begin and end: this one goes on only after another has come."""
    pace = Pace()
    backend.scripts["/api/llm/stream"] = stream([" a"], pace=pace)
    with client.stream("POST", "/api/llm/stream", json=ASK) as response:
        pieces = response.iter_raw()
        pace.allow()
        assert b"token" in next(pieces)
        assert client.post("/api/llm/generate", json=ASK).json()["model"] == "fake-raven"
        pace.allow()
        assert b"done" in next(pieces)


def test_the_last_event_is_kept_whole(backend, client):
    """The end of the stream arrives with the end of the body."""
    backend.scripts["/api/llm/stream"] = stream([" a"], seed=2**63 - 1)
    text = client.post("/api/llm/stream", json=ASK).text
    assert text.encode().endswith(done_event(1, seed=2**63 - 1))
    assert json.loads(text.rsplit("data: ", 1)[1])["seed"] == 2**63 - 1
