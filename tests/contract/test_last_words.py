"""A server that is told to stop ends its answers: what all three tiers do with what is still running then."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
import uvicorn

from functions.backend.controllers.last_words import LastWords as BackendLastWords
from functions.frontend.last_words import LastWords as FrontendLastWords
from functions.llm.controllers.last_words import LastWords as LlmLastWords
from local.tiers import HTTP_PROTOCOL
from tests.undisturbed import undisturbed

TIERS = pytest.mark.parametrize("middleware", [FrontendLastWords, BackendLastWords, LlmLastWords])
TOKEN = b'event: token\ndata: {"i":6,"id":1,"text":" th"}\n\n'


async def app(scope, receive, send):
    """Streams for ever what the path names; .../waiting never begins."""
    if scope["type"] != "http":
        return
    if not scope["path"].endswith("/waiting"):
        kind, first = (b"text/plain", b"text") if scope["path"] == "/plain" else (b"text/event-stream", TOKEN)
        if scope["path"] == "/torn":
            first = first[:-9]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": first, "more_body": True})
    await asyncio.sleep(60)


@contextmanager
def serving(middleware) -> Iterator[tuple[str, uvicorn.Server]]:
    """A server that grants a running answer a tenth of a second when it stops."""
    listener = socket.create_server(("127.0.0.1", 0))
    # uvicorn reads the grace as a number of seconds and never looks whether it is whole.
    options = {"log_config": None, "ws": "none", "lifespan": "off", "timeout_graceful_shutdown": 0.1}
    config = uvicorn.Config(middleware(app), http=HTTP_PROTOCOL, **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", server
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


def answer_of_a_stopped_server(middleware, path: str) -> tuple[httpx.Response, bytes]:
    """The answer, and what had come of it before the server was told to stop."""
    with (
        serving(middleware) as (url, server),
        httpx.Client(trust_env=False, timeout=30) as client,
        client.stream("GET", url + path) as response,
    ):
        chunks = response.iter_raw()
        first = next(chunks)
        server.should_exit = True
        return response, first + b"".join(chunks)


@TIERS
def test_an_event_stream_ends_with_an_error_event(middleware):
    """Whole, and after all that was sent before it; who reads it is told that trying again helps."""
    _, body = answer_of_a_stopped_server(middleware, "/events")
    assert body.startswith(TOKEN)
    name, data = body.removeprefix(TOKEN).decode().strip().split("\n")
    error = json.loads(data.removeprefix("data: "))
    assert name == "event: error"
    assert (error["code"], error["retryable"]) == ("not_ready", True)


@TIERS
@pytest.mark.parametrize("path", ["/plain", "/torn"])
def test_what_cannot_say_so_is_cut_off(middleware, path):
    """A text has no place for an error, and an event that is not whole must not look it: no proper end is sent."""
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
        answer_of_a_stopped_server(middleware, path)


def refusal_of_a_stopped_server(middleware, path: str) -> dict:
    """The error that is answered to what had not begun."""
    with serving(middleware) as (url, server), httpx.Client(trust_env=False, timeout=30) as client:
        timer = threading.Timer(0.2, setattr, [server, "should_exit", True])
        timer.start()
        response = client.get(url + path)
        timer.join()
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    return response.json()["error"]


@TIERS
@undisturbed
def test_what_has_not_begun_is_told_to_come_again(middleware):
    """503, with when."""
    error = refusal_of_a_stopped_server(middleware, "/waiting")
    assert (error["code"], error["field"], error["retryable"]) == ("not_ready", None, True)


@pytest.mark.parametrize("path", ["/v1/waiting", "/tokenize/waiting", "/detokenize/waiting"])
@pytest.mark.parametrize("root", ["", "/models/m"])
@undisturbed
def test_openais_clients_are_told_in_their_own_form(root, path):
    """On their paths an error is data without a name, with a type of OpenAI's."""

    def middleware(app):
        inner = BackendLastWords(app)

        async def rooted(scope, receive, send):
            await inner({**scope, "root_path": root}, receive, send)

        return rooted

    _, body = answer_of_a_stopped_server(middleware, f"{root}/v1/completions")
    told = json.loads(body.removeprefix(TOKEN).removeprefix(b"data: "))["error"]
    for error in (told, refusal_of_a_stopped_server(middleware, f"{root}{path}")):
        assert error.keys() == {"message", "type", "param", "code"}
        assert (error["type"], error["code"]) == ("server_error", "not_ready")
