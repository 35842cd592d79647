"""A model service that follows a script, and the backend in front of it, both over real sockets."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import uvicorn

from functions.backend.app import build_app
from functions.backend.application.llm_gateway import LLMGateway
from functions.backend.domain.account import MINUTE_S
from functions.backend.settings import Settings
from local.tiers import HTTP_PROTOCOL
from tests.unused_ports import unused_address

# Longer than anything here takes on a busy machine, and yet an end for a test that would hang.
PATIENCE_S = 20.0


@contextmanager
def serve(app: Any) -> Iterator[str]:
    """Serve an ASGI app on a free port of the loopback for as long as the block lasts; gives its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, http=HTTP_PROTOCOL, log_config=None, ws="none", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        listener.close()
        assert not thread.is_alive()


class Signal:
    """Something that happened in one thread and is waited for in another."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def give(self) -> None:
        self._event.set()

    def given(self) -> bool:
        return self._event.wait(PATIENCE_S)

    async def wait(self) -> None:
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while not self._event.is_set():
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.005)


class Exchange:
    """One request that the scripted service has received, and its answer."""

    def __init__(self, scope: dict[str, Any], body: bytes, receive: Any, send: Any) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: str = scope["query_string"].decode()
        self.client_port: int = scope["client"][1]
        self.headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.body = body
        self._receive = receive
        self._send = send

    async def start(self, status: int = 200, content_type: str = "text/event-stream", **headers: str) -> None:
        pairs = {"content-type": content_type, **{name.replace("_", "-"): value for name, value in headers.items()}}
        raw = [(name.encode(), value.encode()) for name, value in pairs.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def send(self, *chunks: bytes) -> None:
        for chunk in chunks:
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def answer(self, body: bytes | dict[str, Any], status: int = 200, **headers: str) -> None:
        content_type = (
            "application/json" if isinstance(body, dict) else headers.pop("content_type", "text/event-stream")
        )
        await self.start(status, content_type, **headers)
        await self.send(json.dumps(body).encode() if isinstance(body, dict) else body)
        await self.end()

    async def until_client_leaves(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


Script = Callable[[Exchange], Awaitable[None]]


@dataclass
class FakeLLM:
    """Follows `script` for every request, and remembers the requests; without a `check` it finds all prompts good."""

    url: str = ""
    script: Script | None = None
    exchanges: list[Exchange] = field(default_factory=list)
    check: Script | None = None
    checks: list[Exchange] = field(default_factory=list)

    @property
    def stream_url(self) -> str:
        return f"{self.url}/generate/stream"

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        exchange = Exchange(scope, body, receive, send)
        if exchange.path == "/check":
            self.checks.append(exchange)
            await (self.check(exchange) if self.check else exchange.answer({"model": "muninn-char"}))
            return
        self.exchanges.append(exchange)
        assert self.script is not None
        await self.script(exchange)


@pytest.fixture(scope="session")
def _llm_server() -> Iterator[FakeLLM]:
    llm = FakeLLM()
    with serve(llm) as url:
        llm.url = url
        yield llm


@pytest.fixture
def llm(_llm_server: FakeLLM) -> FakeLLM:
    """The scripted model service; a test sets its `script`."""
    _llm_server.script = None
    _llm_server.check = None
    _llm_server.exchanges, _llm_server.checks = [], []
    return _llm_server


@pytest.fixture(scope="session")
def _backend_server(_llm_server: FakeLLM) -> Iterator[str]:
    with serve(build_app(Settings(llm_url=_llm_server.stream_url))) as url:
        yield url


@contextmanager
def connect(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE_S) as client:
        yield client


@pytest.fixture
def backend(llm: FakeLLM, _backend_server: str) -> Iterator[httpx.Client]:
    """A client of a backend that asks the scripted model service."""
    with connect(_backend_server) as client:
        yield client


@pytest.fixture
def backend_with() -> Callable[..., AbstractContextManager[httpx.Client]]:
    """Gives a client of a backend with other settings, or with another gateway."""

    @contextmanager
    def start(settings: Settings, gateway: LLMGateway | None = None) -> Iterator[httpx.Client]:
        with serve(build_app(settings, gateway)) as url, connect(url) as client:
            yield client

    return start


@pytest.fixture
def fresh(backend_with: Callable[..., AbstractContextManager[httpx.Client]], llm: FakeLLM) -> Iterator[httpx.Client]:
    """A backend of its own: what it has counted, and what it still knows, is this test's."""
    with backend_with(Settings(llm_url=llm.stream_url)) as client:
        yield client


@pytest.fixture
def signal() -> Callable[[], Signal]:
    """Makes signals between the script's thread and the test's."""
    return Signal


@pytest.fixture
def one_minute() -> None:
    """What the test asks is asked in one minute, and on one day: their tokens are all there again with the next one."""
    left_s = MINUTE_S - time.time() % MINUTE_S
    if left_s < PATIENCE_S:
        time.sleep(left_s)


@pytest.fixture
def unused_url() -> str:
    """The stream's address of a model service that is not there."""
    return f"{unused_address()}/generate/stream"
