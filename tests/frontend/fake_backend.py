"""A backend that says what a test tells it to: real HTTP over loopback, written by hand so that it can misbehave."""

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Request:
    """What one client asked."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


# Not how long anything may take, but when a test that waits for nothing gives up: other work may fill the machine.
PATIENCE_S = 30.0


class Pace:
    """Lets a script go on when the test says so, and not when a clock does."""

    def __init__(self) -> None:
        self._allowed = 0
        self._sent = 0

    def allow(self, chunks: int = 1) -> None:
        self._allowed += chunks

    async def turn(self) -> None:
        while self._sent >= self._allowed:  # noqa: ASYNC110  the test is in another thread
            await asyncio.sleep(0.005)
        self._sent += 1


@dataclass(frozen=True)
class Script:
    """One answer: a head, then each chunk after a pause; with `breaks` the connection ends without the body's end.

    With a `pace` each chunk waits for its turn instead.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    chunks: Sequence[bytes] = ()
    gap_s: float = 0.0
    silence_s: float = 0.0
    breaks: bool = False
    pace: Pace | None = None


def as_json(value: Any, status: int = 200, **headers: str) -> Script:
    named = {name.replace("_", "-"): content for name, content in headers.items()}
    return Script(status, {"content-type": "application/json", **named}, [json.dumps(value).encode()])


def as_error(status: int, code: str, message: str, field: str | None = None, retryable: bool = False) -> Script:
    return as_json({"error": {"code": code, "message": message, "field": field, "retryable": retryable}}, status)


def event(name: str, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def token_events(texts: Sequence[str], at: int = 7) -> list[bytes]:
    return [event("token", i=at + n, id=100 + n, text=text) for n, text in enumerate(texts)]


def done_event(tokens: int, seed: int = 42, finish_reason: str = "length", model: str = "fake-raven") -> bytes:
    usage = {"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens}
    return event("done", finish_reason=finish_reason, usage=usage, seed=seed, model=model)


def stream(texts: Sequence[str], gap_s: float = 0.0, pace: Pace | None = None, **end: Any) -> Script:
    """A generation that goes well, one chunk per event."""
    chunks = [*token_events(texts), done_event(len(texts), **end)]
    return Script(200, {"content-type": "text/event-stream; charset=utf-8"}, chunks, gap_s, pace=pace)


MODELS = {
    "models": [
        {"name": "other-crow", "family": "lstm", "default": False},
        {"name": "fake-raven", "family": "mingru", "default": True},
    ]
}
GENERATED = {
    "model": "fake-raven",
    "text": " a raven <b>&amp; a crow</b>",
    "finish_reason": "length",
    "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
    "seed": 9007199254740993,
}


STATUS = {
    "time": 1_800_000_000.0,
    "epoch": "5f3c-0",
    "instances": 1,
    "uptime_s": 90_061.0,
    "models": ["fake-raven"],
    "llm": {
        "tokens_generated": 12_000, "prompt_tokens": 4000, "cached_prompt_tokens": 1500,
        "requests": {"stop": 10, "length": 90, "cancelled": 0, "deadline": 0, "error": 0},
        "queue_depth": 2, "max_queue": 64, "active": 3, "slots": 16, "cache_hits": 30, "cache_misses": 70,
        "cpu_seconds": 24.0, "watts_per_cpu": 7.5, "resident_bytes": 312_000_000,
        "time_to_first_token_s": {"bounds": [0.01, 0.1, 1.0], "counts": [50, 95, 100, 100], "sum": 9.0},
        "inter_token_s": {"bounds": [0.001, 0.01], "counts": [0, 11_900, 11_900], "sum": 60.0},
    },
    "backend": {"requests": {"2xx": 100, "3xx": 0, "4xx": 3, "5xx": 1}, "errors": {"queue_full": 3}, "open_streams": 3},
}  # fmt: skip


class FakeBackend:
    """Answers by path, the same script every time; what was asked is in `requests`."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self.asked = threading.Event()
        self.client_left = threading.Event()
        self.scripts: dict[str, Script] = {
            "/readyz": as_json({"status": "ready"}),
            "/api/llm/models": as_json(MODELS),
            "/api/status": as_json(STATUS),
            "/api/llm/generate": as_json(GENERATED),
            "/api/llm/stream": stream([" a", " raven", " spoke"]),
        }

    @property
    def last(self) -> Request:
        return self.requests[-1]

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await _read_request(reader)) is not None:
                self.requests.append(request)
                self.asked.set()
                script = self.scripts.get(request.path, as_error(404, "not_found", "nothing here"))
                playing = asyncio.create_task(_play(script, writer))
                leaving = asyncio.create_task(reader.read(1))
                await asyncio.wait({playing, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if not playing.done() or isinstance(playing.exception(), ConnectionError):
                    self.client_left.set()
                    playing.cancel()
                leaving.cancel()
                await asyncio.gather(playing, leaving, return_exceptions=True)
                return
        finally:
            writer.close()


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path, headers, body)


async def _play(script: Script, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(script.silence_s)
    headers = {"transfer-encoding": "chunked", "connection": "close", **script.headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"HTTP/1.1 {script.status} Scripted\r\n{head}\r\n".encode("latin-1"))
    await writer.drain()
    for chunk in script.chunks:
        await (script.pace.turn() if script.pace else asyncio.sleep(script.gap_s))
        writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        await writer.drain()
    if script.breaks:
        # After a pause, so that the break is not seen together with what came before it.
        await asyncio.sleep(0.05)
    else:
        writer.write(b"0\r\n\r\n")
        await writer.drain()


@contextmanager
def run_fake_backend() -> Iterator[FakeBackend]:
    """The backend on a port of its own, in a thread of its own."""
    backend = FakeBackend()
    started = threading.Event()
    stop: asyncio.Event
    loop: asyncio.AbstractEventLoop

    async def serve() -> None:
        nonlocal stop, loop
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(backend.answer, "127.0.0.1", 0)
        backend.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started.set()
        await stop.wait()
        server.close()
        open_answers = asyncio.all_tasks() - {asyncio.current_task()}
        for task in open_answers:
            task.cancel()
        await asyncio.gather(*open_answers, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="fake backend")
    thread.start()
    try:
        assert started.wait(PATIENCE_S)
        yield backend
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
