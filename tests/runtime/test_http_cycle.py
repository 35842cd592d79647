"""The end of the function's time, where the other side is slow."""

import asyncio
import contextlib
import json
import time

import pytest

from functions.runtime.context import LambdaContext
from functions.runtime.events import HttpRequest
from functions.runtime.http_cycle import HttpCycle
from functions.runtime.reply import BufferedReply, Reply, StreamedReply
from functions.runtime.runtime_api import Invocation, RuntimeApi
from tests.undisturbed import undisturbed

LEFT_S = 1.2
ACCEPTED = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"


class SlowRuntimeApi:
    """Reads what is posted to it only when it is told to."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.received = asyncio.get_running_loop().create_future()

    @contextlib.asynccontextmanager
    async def address(self):
        server = await asyncio.start_server(self._take, "127.0.0.1", 0, limit=1024)
        async with server:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _take(self, reader, writer):
        await self.reads.wait()
        data = b""
        with contextlib.suppress(ConnectionError):
            while more := await reader.read(1 << 16):
                data += more
                if data.endswith(b"\r\n0\r\n\r\n") or b"\r\n0\r\nLambda" in data:
                    writer.write(ACCEPTED)
        self.received.set_result(data)
        writer.close()


async def flooding(scope, receive, send):
    """More than any buffer on the way holds."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    while True:
        await send({"type": "http.response.body", "body": 99_998 * b"x" + b"\n\n", "more_body": True})


async def failing(scope, receive, send):
    """One that fails once nobody takes its chunks."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.3):
            await flooding(scope, receive, send)
    raise RuntimeError("broken")


async def large(scope, receive, send):
    """A whole body larger than any buffer."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": 20_000_000 * b"x"})


def invocation() -> Invocation:
    return Invocation(b"{}", LambdaContext("1", "", 0), "", "")


def cycle(app, reply: Reply) -> HttpCycle:
    return HttpCycle(app, HttpRequest({"type": "http"}, b"", True, lambda answer: answer), reply)


@pytest.mark.parametrize(("app", "buffered"), [(flooding, False), (failing, False), (large, True)])
@undisturbed
def test_who_does_not_read_is_let_go_in_time(app, buffered, caplog):
    """Before Lambda would end the process; the response is cut off, not complete, and the log says so."""
    caplog.clear()

    async def run():
        slow = SlowRuntimeApi()
        async with slow.address() as address:
            api = RuntimeApi(address)
            reply = StreamedReply(api, invocation())
            if buffered:
                reply = BufferedReply(api, invocation(), lambda answer: {**answer, "body": answer["body"].decode()})
            began = time.monotonic()
            await cycle(app, reply).run(LEFT_S)
            took_s = time.monotonic() - began
            slow.reads.set()
            return took_s, await slow.received

    took_s, data = asyncio.run(run())
    assert took_s < LEFT_S
    assert data.startswith(b"POST ")
    assert b"\r\n0\r\n" not in data
    assert len(data) < 20_000_000
    assert "cut off" in caplog.text


@undisturbed
def test_who_reads_late_still_gets_the_last_event():
    """As long as there is time: everything that was sent, and why it ends there."""

    async def run():
        slow = SlowRuntimeApi()
        async with slow.address() as address:
            asyncio.get_running_loop().call_later(0.9 * LEFT_S, slow.reads.set)
            await cycle(flooding, StreamedReply(RuntimeApi(address), invocation())).run(LEFT_S)
            return await slow.received

    data = asyncio.run(run())
    assert data.count(b"event: error\ndata: ") == 1
    assert b"Lambda-Runtime-Function-Error-Type: Runtime.DeadlineExceeded\r\n" in data


class SlowToStart:
    """A reply that takes its time for the head, and says what was asked of it."""

    def __init__(self, takes_s: float) -> None:
        self.takes_s = takes_s
        self.has_started = False
        self.calls: list[str] = []

    async def start(self, status, headers):
        await asyncio.sleep(self.takes_s)
        self.has_started = True
        self.calls.append(f"start {status}")

    async def write(self, data):
        assert self.has_started
        if b"event: error" in data:
            self.calls.append(f"write {json.loads(data.partition(b'data: ')[2])['code']}")

    async def finish(self):
        self.calls.append("finish")

    async def fail(self, error):
        self.calls.append(f"fail {error}")

    def abort(self):
        self.calls.append("abort")


@undisturbed
def test_a_deadline_in_the_middle_of_the_start():
    """The head goes out first, then the error: one head, and never nothing."""
    reply = SlowToStart(takes_s=LEFT_S * 0.9)
    asyncio.run(cycle(flooding, reply).run(LEFT_S))
    *said, end, abort = reply.calls
    assert said == ["start 200", "write deadline_exceeded"]
    assert end.startswith("fail The function's time was up")
    assert abort == "abort"


@undisturbed
def test_an_app_that_never_waits_is_ended_too():
    """Its sends are the only places where anybody else can run; after the deadline they let them."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(300):
            time.sleep(0.01)  # noqa: ASYNC251 - as a computation would
            await send({"type": "http.response.body", "body": b"x", "more_body": True})

    reply = SlowToStart(takes_s=0)
    began = time.monotonic()
    asyncio.run(cycle(app, reply).run(LEFT_S))
    assert time.monotonic() - began < LEFT_S
    assert reply.calls[1].startswith("fail The function's time was up")


def test_a_second_head_is_refused():
    """As ASGI has it; the first response fails."""

    async def app(scope, receive, send):
        for _ in range(2):
            await send({"type": "http.response.start", "status": 200, "headers": []})

    reply = SlowToStart(takes_s=0)
    asyncio.run(cycle(app, reply).run(LEFT_S))
    assert reply.calls == ["start 200", "fail The app sent http.response.start out of turn.", "abort"]
