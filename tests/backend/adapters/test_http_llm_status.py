"""Every instance behind a name is asked, whatever becomes of the others."""

import asyncio
import json
import socket
import sys
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import uvicorn

from functions.backend.adapters.http_llm_status import HTTPLLMStatus

GOLDEN = json.loads((Path(__file__).parents[2] / "contract" / "golden" / "status_llm.json").read_bytes())


def instance(name):
    """An instance that says its name; without one it says nothing at all."""

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        if name is None:
            await asyncio.Event().wait()
        body = json.dumps({**GOLDEN, "instance": name}).encode()
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


@contextmanager
def served(app, listener):
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have one loopback address")
def test_all_that_answer_are_told_of():
    """Of four addresses one hangs, and at one nobody listens; the two others are there all the same."""
    first = socket.create_server(("127.0.0.1", 0))
    port = first.getsockname()[1]
    others = [socket.create_server((host, port)) for host in ("127.0.0.2", "127.0.0.3")]
    asked = []

    async def resolve(host, port):
        asked.append(host)
        return [(socket.AF_INET, f"127.0.0.{number}", port) for number in (3, 1, 4, 2)]

    async def ask():
        status = HTTPLLMStatus(f"http://llm:{port}/generate/stream", resolve)
        try:
            return await status.statuses("id")
        finally:
            await status.aclose()

    with ExitStack() as stack:
        for name, listener in zip(["one", "two", None], [first, *others], strict=True):
            stack.enter_context(served(instance(name), listener))
        statuses = asyncio.run(ask())
    assert asked == ["llm"]
    assert [status.instance for status in statuses] == ["one", "two"]
