"""One name, several instances of the model service: each on an address of the loopback, all on one port."""

import asyncio
import json
import socket
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import pytest

from functions.backend.adapters import http_llm_gateway
from functions.backend.adapters.addresses import Addresses
from functions.backend.adapters.http_llm_gateway import HTTPLLMGateway
from functions.backend.domain.errors import LLMBusy, LLMDisconnected, LLMTimeout, LLMUnavailable
from functions.backend.domain.events import Done
from functions.backend.domain.generation import Generation
from functions.backend.domain.prompt import Prompt, PromptLimits
from tests.undisturbed import undisturbed

GENERATION = Generation(Prompt("ROMEO:", PromptLimits(100)))
TOKEN = b'event: token\ndata: {"i":6,"id":1,"text":" th"}\n\n'
DONE = (
    b'event: done\ndata: {"finish_reason":"stop","usage":{"prompt_tokens":6,"completion_tokens":1,"total_tokens":7},'
    b'"seed":42,"model":"m"}\n\n'
)


def answer(body, status="200 OK", content_type="text/event-stream", **headers):
    lines = [f"HTTP/1.1 {status}", f"content-type: {content_type}", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


WHOLE = answer(TOKEN + DONE)
BEGUN = answer(TOKEN).replace(b"content-length: %d" % len(TOKEN), b"content-length: 9999")
FULL = answer(b"{}", "503 Service Unavailable", "application/json", retry_after="3")


def models(*names):
    card = {"family": "f", "vocab_size": 2, "tokenizer": "t", "parameters": 1, "size_bytes": 4, "digest": "d"}
    cards = [card | {"name": name, "default": name == names[0]} for name in names]
    return answer(json.dumps({"models": cards}).encode(), content_type="application/json")


class Instance:
    """Answers every request with the same bytes, and then waits if they are no whole answer; b"" hangs up."""

    def __init__(self, host):
        self.host = host
        self.says = WHOLE
        self.crashes = False
        self.asked = 0
        self.was_asked = asyncio.Event()
        self._server = None
        self._writers = []

    async def start(self, port):
        self._server = await asyncio.start_server(self._serve, self.host, port)
        return self._server.sockets[0].getsockname()[1]

    async def stop(self):
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader, writer):
        self._writers.append(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = head.partition("content-length: ")[2].partition("\r\n")[0]
                await reader.readexactly(int(length or 0))
                self.asked += 1
                self.was_asked.set()
                if self.crashes:
                    self._server.close()
                    break
                writer.write(self.says)
                if not self.says:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()


class Names:
    """A name server with one name."""

    def __init__(self, instances, port):
        self.port = port
        self.leads_to = [instance.host for instance in instances]

    async def __call__(self, host, port):
        if not self.leads_to:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, host, self.port) for host in self.leads_to]


@asynccontextmanager
async def instances(count, timeout_s=10.0):
    """So many instances, the gateway to all of them, and where their name leads."""
    async with asyncio.timeout(15), AsyncExitStack() as stack:
        running, port = [Instance(f"127.0.0.{2 + index}") for index in range(count)], 0
        for instance in running:
            port = await instance.start(port)
            stack.push_async_callback(instance.stop)
        names = Names(running, port)
        gateway = HTTPLLMGateway("http://llm:8008/generate/stream", timeout_s, 2.0, resolve=names)
        stack.push_async_callback(gateway.aclose)
        yield running, gateway, names


async def stream_to_the_end(gateway):
    async with aclosing(gateway.stream(GENERATION, "r-1")) as events:
        return [event async for event in events]


def test_instances_take_turns():
    """Among those that are equally busy the one that had no request for longest is asked."""

    async def run():
        async with instances(3) as (running, gateway, _):
            for _ in range(6):
                assert isinstance((await stream_to_the_end(gateway))[-1], Done)
            assert [instance.asked for instance in running] == [2, 2, 2]

    asyncio.run(run())


def test_the_least_busy_is_asked_first():
    """Open streams count, and not whose turn it would be."""

    async def run():
        async with instances(2) as (running, gateway, _), AsyncExitStack() as held:
            for instance in running:
                instance.says = BEGUN

            async def hold():
                events = await held.enter_async_context(aclosing(gateway.stream(GENERATION, "r-1")))
                await anext(events)
                return events

            first, second, third, _ = [await hold() for _ in range(4)]
            assert [instance.asked for instance in running] == [2, 2]
            # Both streams of the first one end; so the next two are there.
            await first.aclose()
            await third.aclose()
            for _ in range(2):
                await hold()
            assert [instance.asked for instance in running] == [4, 2]
            await second.aclose()

    asyncio.run(run())


@pytest.mark.parametrize("how", ["gone", "hangs up", "full", "has not the model"])
def test_one_that_cannot_is_passed_over_before_the_first_byte(how):
    """Nobody is told of it: another one answers."""

    async def run():
        async with instances(2) as (running, gateway, _):
            bad, good = running
            if how == "gone":
                await bad.stop()
            bad.says = {
                "gone": b"",
                "hangs up": b"",
                "full": FULL,
                "has not the model": answer(b"{}", "404 Not Found", "application/json"),
            }[how]
            for _ in range(4):
                assert isinstance((await stream_to_the_end(gateway))[-1], Done)
            assert good.asked == 4
            # And the one is left alone for a while, unless it is the right one for other models.
            assert bad.asked == {"gone": 0, "hangs up": 1, "full": 1, "has not the model": 4}[how]

    asyncio.run(run())


def test_when_all_are_full_the_client_hears_when_to_come_back():
    """And when nobody is there, that nobody is."""

    async def run():
        async with instances(2) as (running, gateway, _):
            for instance in running:
                instance.says = FULL
            with pytest.raises(LLMBusy) as busy:
                await stream_to_the_end(gateway)
            assert busy.value.retry_after == "3"
            assert [instance.asked for instance in running] == [1, 1]
            assert not await gateway.ready("r-1")
            for instance in running:
                await instance.stop()
            with pytest.raises(LLMUnavailable):
                await stream_to_the_end(gateway)

    asyncio.run(run())


@undisturbed
def test_an_instance_that_is_silent_is_not_asked_for_twice():
    """It may be at work on it; but the next request goes to another."""

    async def run():
        async with instances(2, timeout_s=0.2) as (running, gateway, _):
            running[0].says = b"HTTP/1.1 200 OK\r\n"
            with pytest.raises(LLMTimeout):
                await stream_to_the_end(gateway)
            assert running[1].asked == 0
            for _ in range(2):
                await stream_to_the_end(gateway)
            assert running[1].asked == 2

    asyncio.run(run())


@pytest.mark.parametrize("kept", [False, True], ids=["new connections", "kept connections"])
def test_a_request_that_breaks_who_reads_it_is_not_handed_to_all(kept):
    """One other instance is tried, for the first may have had troubles of its own; the third is spared."""

    async def run():
        async with instances(3) as (running, gateway, _):
            for _ in range(3 if kept else 0):
                await stream_to_the_end(gateway)
            before = sum(instance.asked for instance in running)
            for instance in running:
                # Whoever reads it next is gone with it.
                instance.crashes = True
            with pytest.raises(LLMDisconnected):
                await stream_to_the_end(gateway)
            assert sum(instance.asked for instance in running) - before == 2

    asyncio.run(run())


@pytest.mark.parametrize("how", ["silent", "left"])
@undisturbed
def test_a_refusal_is_let_go_of_when_the_next_one_does_not_answer(how):
    """The one that refused has no open request afterwards: it has its turns again like any other."""

    async def run():
        async with instances(2, timeout_s=0.2 if how == "silent" else 10.0) as (running, gateway, _):
            running[0].says, running[1].says = FULL, b"HTTP/1.1 200 OK\r\n"
            if how == "silent":
                with pytest.raises(LLMTimeout):
                    await stream_to_the_end(gateway)
            else:
                leaving = asyncio.create_task(stream_to_the_end(gateway))
                await running[1].was_asked.wait()
                leaving.cancel()
                await asyncio.gather(leaving, return_exceptions=True)
            addresses = gateway._addresses._known
            assert [address.open_requests for address in addresses] == [0, 0]

    asyncio.run(run())


def test_an_instance_that_dies_in_mid_stream_ends_that_stream_and_no_other():
    """What has been said cannot be taken back; who comes next is answered by another."""

    async def run():
        async with instances(2) as (running, gateway, _):
            running[0].says = BEGUN
            async with aclosing(gateway.stream(GENERATION, "r-1")) as events:
                await anext(events)
                await running[0].stop()
                with pytest.raises(LLMDisconnected):
                    await anext(events)
            for _ in range(2):
                await stream_to_the_end(gateway)
            assert running[1].asked == 2

    asyncio.run(run())


def test_instances_that_come_are_found_and_their_names_are_kept_while_nobody_tells_them():
    """A failure asks the name again, at once; a name server that is away changes nothing."""

    async def run():
        async with instances(2) as (running, gateway, names):
            names.leads_to = [running[0].host]
            await stream_to_the_end(gateway)
            await running[0].stop()
            names.leads_to = [running[1].host]
            await stream_to_the_end(gateway)
            assert running[1].asked == 1
            names.leads_to = []
            running[1].says = b""
            with pytest.raises(LLMDisconnected):
                await stream_to_the_end(gateway)
            running[1].says = WHOLE
            await stream_to_the_end(gateway)

    asyncio.run(run())


def test_the_name_is_asked_again_after_a_few_seconds():
    """And not at every request."""
    now, asked = [100.0], []

    async def resolve(host, port):
        asked.append(host)
        return [(socket.AF_INET, "127.0.0.2", port), (socket.AF_INET6, "::1", port)][: len(asked)]

    async def run():
        addresses = Addresses("llm", 8008, lambda: now[0], resolve)
        first = await addresses.best()
        for _ in range(5):
            assert await addresses.best() is first
        assert len(asked) == 1
        now[0] += 4
        # The other family mostly is the same machine: it is there for when this one fails.
        assert list(await addresses.working()) == [first]
        addresses.opened(first)
        assert await addresses.best() is first
        addresses.failed(first)
        assert (await addresses.best()).host == "::1"
        assert len(asked) == 3

    asyncio.run(run())


class SlowNames:
    """A name server that answers when it is told to, and counts the questions."""

    def __init__(self, *hosts):
        self.hosts = hosts
        self.answers = asyncio.Event()
        self.asked = 0

    async def __call__(self, host, port):
        self.asked += 1
        await self.answers.wait()
        if not self.hosts:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, host, port) for host in self.hosts]


def test_a_first_burst_waits_for_one_look_up():
    """Nobody is told that there is no address while the name server is still being asked; it is asked once."""

    async def run():
        names = SlowNames("127.0.0.2")
        addresses = Addresses("llm", 8008, lambda: 100.0, names)
        burst = [asyncio.create_task(addresses.best()) for _ in range(5)]
        await asyncio.sleep(0)
        # Who came first, and began to ask, leaves; the others still hear the answer.
        burst[0].cancel()
        await asyncio.sleep(0)
        burst.append(asyncio.create_task(addresses.best()))
        await asyncio.sleep(0)
        names.answers.set()
        assert [address.host for address in await asyncio.gather(*burst[1:])] == ["127.0.0.2"] * 5
        assert names.asked == 1

    asyncio.run(run())


def test_a_name_that_nobody_knows_yet_is_asked_again_by_who_comes_next():
    """Everybody in the burst hears why; a moment later the service may be there."""

    async def run():
        names = SlowNames()
        names.answers.set()
        addresses = Addresses("llm", 8008, lambda: 100.0, names)
        burst = await asyncio.gather(*(addresses.best() for _ in range(3)), return_exceptions=True)
        assert [type(error) for error in burst] == [socket.gaierror] * 3
        names.hosts = ("127.0.0.2",)
        assert (await addresses.best()).host == "127.0.0.2"
        assert names.asked == 2

    asyncio.run(run())


def test_a_name_server_that_hangs_holds_nobody_up_for_long(monkeypatch):
    """What is known is taken; where nothing is, the reason is told."""
    monkeypatch.setattr("functions.backend.adapters.addresses._PATIENCE_S", 0.05)
    monkeypatch.setattr("functions.backend.adapters.addresses._PATIENCE_WITH_SOME_S", 0.05)
    now = [100.0]

    async def run():
        names = SlowNames("127.0.0.2")
        addresses = Addresses("llm", 8008, lambda: now[0], names)
        with pytest.raises(TimeoutError, match="where llm is"):
            await addresses.best()
        names.answers.set()
        assert (await addresses.best()).host == "127.0.0.2"
        names.answers.clear()
        now[0] += 4
        assert [(await addresses.best()).host for _ in range(3)] == ["127.0.0.2"] * 3
        assert names.asked == 2

    asyncio.run(asyncio.wait_for(run(), 10))


def test_any_is_ready_and_all_models_are_listed():
    """What one of them has can be asked for."""

    async def run():
        async with instances(3) as (running, gateway, _):
            running[0].says, running[1].says = models("a", "b"), models("c", "b")
            running[2].says = FULL
            assert await gateway.ready("r-1")
            assert {card.name for card in await gateway.models("r-1")} == {"a", "b", "c"}
            await running[0].stop()
            assert [card.name for card in await gateway.models("r-1")] == ["c", "b"]

    asyncio.run(run())


@undisturbed
def test_one_that_hangs_does_not_hold_up_the_list_of_models(monkeypatch):
    """It is waited for no longer than a list takes, and then left alone. One that is full is not."""
    monkeypatch.setattr(http_llm_gateway, "_LIST_WITHIN_S", 0.2)

    async def run():
        async with instances(2, timeout_s=60.0) as (running, gateway, _):
            running[0].says, running[1].says = models("a"), b"HTTP/1.1 200 OK\r\n"
            async with asyncio.timeout(30):
                for _ in range(4):
                    assert [card.name for card in await gateway.models("r-1")] == ["a"]
            assert (running[0].asked, running[1].asked) == (4, 1)
            for address in gateway._addresses._known:
                gateway._addresses.full(address)
            assert len(await gateway._addresses.working()) == 2

    asyncio.run(run())
