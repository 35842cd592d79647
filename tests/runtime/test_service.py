"""The end of a process whose Runtime API has something else to say at the same time."""

import asyncio
import contextlib
import json

import pytest

from functions.runtime.runtime_api import RuntimeApi, RuntimeApiError
from functions.runtime.service import Service
from functions.runtime.settings import Settings

EVENT = json.dumps(
    {
        "version": "2.0",
        "rawPath": "/",
        "rawQueryString": "",
        "headers": {},
        "requestContext": {"http": {"method": "GET", "path": "/", "sourceIp": "127.0.0.1"}},
        "isBase64Encoded": False,
    }
).encode()
INVOCATION = (
    b"HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: 1\r\nLambda-Runtime-Deadline-Ms: 99999999999999\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(EVENT), EVENT)
)
REFUSAL = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"
ACCEPTED = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"


@contextlib.asynccontextmanager
async def runtime_api(answer_next, answers: list[bytes]):
    """A Runtime API of which the n-th request for work is answered by `answer_next(n, writer)`; posts are kept."""
    asked = 0

    async def take(reader, writer):
        nonlocal asked
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET "):
                asked += 1
                await answer_next(asked, writer)
            else:
                answers.append(await reader.readuntil(b"\r\n0\r\n\r\n"))
                writer.write(ACCEPTED)
            await reader.read()
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def slow(scope, receive, send):
    """Its answer takes a while."""
    if scope["type"] == "http":
        await asyncio.sleep(0.2)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"complete"})


@pytest.mark.parametrize("cut", [1, 20, len(INVOCATION)])
def test_what_was_handed_over_before_the_end_is_answered(cut):
    """The signal comes when Lambda has sent an invocation, or a part of it, and before the process has read it."""

    async def run():
        answers: list[bytes] = []

        async def hand_over(number, writer):
            writer.write(INVOCATION[:cut])
            service.stop()
            await asyncio.sleep(0.01)
            writer.write(INVOCATION[cut:])

        async with runtime_api(hand_over, answers) as address:
            service = Service(slow, RuntimeApi(address), Settings(address, ""))
            await service.run()
        return answers

    [answer] = asyncio.run(run())
    assert b"\r\ncomplete\r\n" in answer


def test_who_waits_for_work_does_not_keep_the_process():
    """Nothing has been handed over, nothing will be."""

    async def run():
        async def nothing(number, writer):
            service.stop()

        async with asyncio.timeout(5), runtime_api(nothing, []) as address:
            service = Service(slow, RuntimeApi(address), Settings(address, "", max_concurrency=3))
            await service.run()

    asyncio.run(run())


def test_a_runtime_api_that_fails_harms_no_answer_under_way():
    """One request for work is refused while another's answer is not complete: it becomes complete first."""

    async def run():
        answers: list[bytes] = []

        async def once(number, writer):
            writer.write(INVOCATION if number == 1 else REFUSAL)

        async with runtime_api(once, answers) as address:
            service = Service(slow, RuntimeApi(address), Settings(address, "", max_concurrency=2))
            with pytest.raises(RuntimeApiError):
                await service.run()
        return answers

    [answer] = asyncio.run(run())
    assert b"\r\ncomplete\r\n" in answer
