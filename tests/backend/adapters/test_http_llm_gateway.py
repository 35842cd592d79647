"""The gateway against a service on a real socket that does everything a service can do."""

import asyncio
import contextlib
import gc
import json
import socket
import threading
from contextlib import aclosing

import httpx
import pytest

from functions.backend.adapters.http_llm_gateway import HTTPLLMGateway
from functions.backend.domain.errors import (
    DeadlineExceeded,
    LLMBusy,
    LLMDisconnected,
    LLMMisbehaved,
    LLMRefused,
    LLMTimeout,
    LLMUnavailable,
)
from functions.backend.domain.events import Done, StreamError, Token, Usage
from functions.backend.domain.generation import Generation
from functions.backend.domain.prompt import Prompt, PromptLimits, SamplingOptions
from tests.undisturbed import undisturbed

GENERATION = Generation(Prompt("ROMEO:", PromptLimits(100)))
TOKEN_FRAME = b'event: token\ndata: {"i":6,"id":1,"text":" th"}\n\n'
DONE_FRAME = (
    b'event: done\ndata: {"finish_reason":"stop","usage":{"prompt_tokens":6,"completion_tokens":1,"total_tokens":7},'
    b'"seed":42,"model":"muninn-char"}\n\n'
)
TOKEN = Token(6, 1, " th")
DONE = Done("stop", Usage(6, 1, 7), 42, "muninn-char")


@contextlib.asynccontextmanager
async def gateway_to(stream_url, timeout_s=20.0, connect_timeout_s=20.0, auth=None):
    gateway = HTTPLLMGateway(stream_url, timeout_s, connect_timeout_s, auth)
    try:
        yield gateway
    finally:
        await gateway.aclose()


async def told_by(gateway, generation=GENERATION):
    return [event async for event in gateway.stream(generation, "r-1")]


def ask(llm, generation=GENERATION, **timeouts):
    """Give all events of one generation."""

    async def run():
        # Half of the gateway's usual patience: what waits for that to run out has waited for nothing.
        async with asyncio.timeout(10), gateway_to(llm.stream_url, **timeouts) as gateway:
            return await told_by(gateway, generation)

    return asyncio.run(run())


def test_events_come_as_the_domain_knows_them(llm):
    """Tokens and the end are read; kinds and fields that are not known yet are let pass."""

    async def script(exchange):
        await exchange.answer(
            b": hello\n\n"
            + TOKEN_FRAME
            + b'event: state\ndata: {"i":7,"state":"sealed"}\n\n'
            + b'event: error\ndata: {"code":"internal","message":"m","retryable":true,"hint":"new"}\n\n'
        )

    llm.script = script
    assert ask(llm) == [TOKEN, StreamError("internal", "m", retryable=True)]


def test_the_request_says_who_asks_for_what(llm):
    """An event stream is asked for, at the one configured address, with the request's id."""
    llm.script = lambda exchange: exchange.answer(TOKEN_FRAME + DONE_FRAME)
    ask(llm, Generation(Prompt("é", PromptLimits(9)), SamplingOptions(stop=("\n",), seed=0), model="m"))
    [exchange] = llm.exchanges
    assert (exchange.method, exchange.path) == ("POST", "/generate/stream")
    assert exchange.headers["accept"] == "text/event-stream"
    assert exchange.headers["content-type"] == "application/json"
    assert exchange.headers["x-request-id"] == "r-1"
    assert json.loads(exchange.body) == {"prompt": "é", "stop": ["\n"], "seed": 0, "model": "m"}


def test_connections_are_used_again(llm):
    """A stream or a probe that was read to its end leaves its connection for the next one."""
    llm.script = lambda exchange: exchange.answer(TOKEN_FRAME + DONE_FRAME)

    async def run():
        async with gateway_to(llm.stream_url) as gateway:
            for _ in range(3):
                assert await gateway.ready("r-1")
                await told_by(gateway)

    asyncio.run(run())
    assert len({exchange.client_port for exchange in llm.exchanges}) == 1


def test_connections_between_lambdas_are_not_used_again(llm):
    """Where requests are signed each has a connection of its own: one that was kept would not survive a freeze."""
    llm.script = lambda exchange: exchange.answer(TOKEN_FRAME + DONE_FRAME)

    async def run():
        async with gateway_to(llm.stream_url, auth=httpx.Auth()) as gateway:
            for _ in range(3):
                assert await gateway.ready("r-1")
                await told_by(gateway)

    asyncio.run(run())
    assert len({exchange.client_port for exchange in llm.exchanges}) == 6


def test_the_end_is_told_even_when_the_service_forgets_to_hang_up(llm, signal):
    """After the last event nothing is waited for that the client could miss."""
    left = signal()

    async def script(exchange):
        await exchange.start()
        await exchange.send(TOKEN_FRAME, DONE_FRAME)
        await exchange.until_client_leaves()
        left.give()

    llm.script = script
    assert ask(llm) == [TOKEN, DONE]
    assert left.given()


def test_closing_the_stream_closes_the_request_at_once(llm, signal):
    """A reader that leaves is noticed by the service while the gateway and its pool live on."""
    left = signal()

    async def script(exchange):
        await exchange.start()
        await exchange.send(TOKEN_FRAME)
        await exchange.until_client_leaves()
        left.give()

    llm.script = script

    async def run():
        async with gateway_to(llm.stream_url) as gateway:
            async with aclosing(gateway.stream(GENERATION, "r-1")) as events:
                assert await anext(events) == TOKEN
            assert await asyncio.to_thread(left.given)

    asyncio.run(run())


# The first loop's idle connection is left to the garbage collector, which says so: nobody can close it any more.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_gateway_serves_several_loops(llm):
    """On Lambda invocations may each bring a loop; no connection crosses from one to another."""
    llm.script = lambda exchange: exchange.answer(TOKEN_FRAME + DONE_FRAME)
    gateway = HTTPLLMGateway(llm.stream_url, 20.0, 20.0)
    for _ in range(3):
        assert asyncio.run(told_by(gateway)) == [TOKEN, DONE]
    asyncio.run(gateway.aclose())
    gc.collect()


def test_the_environment_s_proxies_are_not_ours(llm, monkeypatch, unused_url):
    """A proxy meant for the outside would swallow the requests between our own services."""
    monkeypatch.setenv("HTTP_PROXY", unused_url)
    monkeypatch.setenv("ALL_PROXY", unused_url)
    llm.script = lambda exchange: exchange.answer(TOKEN_FRAME + DONE_FRAME)
    assert ask(llm) == [TOKEN, DONE]


def test_nobody_there(unused_url):
    """A refused connection is a service that is not there, and readiness says no instead of raising."""

    async def run():
        async with gateway_to(unused_url) as gateway:
            with pytest.raises(LLMUnavailable, match="LLM_URL"):
                await told_by(gateway)
            with pytest.raises(LLMUnavailable):
                await gateway.models("r-1")
            assert not await gateway.ready("r-1")

    asyncio.run(run())


@pytest.mark.parametrize("sent", [[], [TOKEN_FRAME]], ids=["before the head", "in the stream"])
def test_silence_has_an_end(llm, sent):
    """The longest silence is measured between bytes, from the first one on."""

    async def script(exchange):
        if sent:
            await exchange.start()
            await exchange.send(*sent)
        await exchange.until_client_leaves()

    llm.script = script
    with pytest.raises(LLMTimeout, match="LLM_TIMEOUT_S"):
        ask(llm, timeout_s=0.2)


@undisturbed
def test_a_slow_stream_is_not_a_silent_one(llm):
    """A stream may last longer than the longest silence."""

    async def script(exchange):
        await exchange.start()
        for _ in range(6):
            await asyncio.sleep(0.25)
            await exchange.send(TOKEN_FRAME)
        await exchange.send(DONE_FRAME)
        await exchange.end()

    llm.script = script
    assert ask(llm, timeout_s=1.2) == [TOKEN] * 6 + [DONE]


@pytest.mark.parametrize("properly", [True, False], ids=["with a last chunk", "cut off"])
def test_a_stream_without_an_end_is_a_broken_one(llm, properly):
    """Neither a polite nor a rude hang-up passes for a complete text."""

    async def script(exchange):
        await exchange.start()
        await exchange.send(TOKEN_FRAME)
        if properly:
            await exchange.end()

    llm.script = script
    with pytest.raises(LLMDisconnected):
        ask(llm)


@pytest.mark.parametrize(
    "stream",
    [
        b"event: token\ndata: not json\n\n",
        b'event: token\ndata: {"i":6,"id":"1","text":" th"}\n\n',
        b'event: token\ndata: {"i":6,"id":1}\n\n',
        b'event: token\ndata: {"i":6,"id":1,"text":"\\ud800"}\n\n',
        b'event: token\ndata: {"i":6,"id":1,"text":"","logprob":NaN,"top":[]}\n\n',
        b'event: done\ndata: {"finish_reason":"boredom"}\n\n',
        b"event: error\ndata: []\n\n",
        b"data: \xff\xfe\n\n",
        b"data: " + b"x" * 2_000_000,
    ],
    ids=["text", "wrong type", "missing", "surrogate", "nan", "reason", "array", "not utf-8", "huge line"],
)
def test_garbage_in_the_stream_is_named(llm, stream):
    """What cannot be read is the service's fault, and is not guessed at."""

    async def script(exchange):
        await exchange.start()
        # A service whose client hangs up on it cannot send on; uvicorn lets it, silently.
        await exchange.send(stream)
        await exchange.end()

    llm.script = script
    with pytest.raises(LLMMisbehaved):
        ask(llm)


def test_another_form_than_asked_for_is_named(llm):
    """A service that answers plain text cannot tell how a text ended."""
    llm.script = lambda exchange: exchange.answer(b"hello", content_type="text/plain")
    with pytest.raises(LLMMisbehaved, match="text/plain"):
        ask(llm)


def test_what_is_not_http_is_not_an_answer():
    """Another program on that port is a failure of the service, not of ours."""

    def talk_nonsense(listener):
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"220 smtp.example.org ESMTP\r\n\r\n")

    async def run(port):
        async with gateway_to(f"http://127.0.0.1:{port}/generate/stream") as gateway:
            await told_by(gateway)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=talk_nonsense, args=[listener])
        thread.start()
        with pytest.raises(LLMDisconnected):
            asyncio.run(run(listener.getsockname()[1]))
        thread.join()


def error(code, field=None):
    return {"error": {"code": code, "message": f"about {code}", "field": field, "retryable": False}}


@pytest.mark.parametrize(
    ("status", "code", "field"),
    [(404, "model_not_found", "model"), (422, "invalid_request", "top_k"), (413, "body_too_large", None)],
)
def test_refusals_of_the_request_pass_unchanged(llm, status, code, field):
    """What only the model service can see is said in its words."""
    llm.script = lambda exchange: exchange.answer(error(code, field), status)
    with pytest.raises(LLMRefused) as refusal:
        ask(llm)
    refused = refusal.value
    assert (refused.status, refused.code, refused.message, refused.field) == (status, code, f"about {code}", field)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, error("internal")),
        (404, error("not_found")),
        (405, error("method_not_allowed")),
        (400, error("invalid_json")),
        (421, error("misdirected_request")),
        (408, error("request_timeout")),
        (422, b'{"detail": "another framework"}'),
        (404, b"<html>nginx</html>"),
        (503, b"no healthy upstream"),
        (302, b""),
        (204, b""),
    ],
)
def test_every_other_answer_is_the_service_s_fault(llm, status, body):
    """A client cannot mend our address, our method or our headers."""
    llm.script = lambda exchange: exchange.answer(body, status)
    with pytest.raises(LLMMisbehaved, match=str(status)):
        ask(llm)


@pytest.mark.parametrize(("body", "code"), [(error("queue_full"), "queue_full"), (b"warming up", "not_ready")])
def test_busy_says_when_to_come_back(llm, body, code):
    """Retry-After passes, with the service's own reason where it gives one."""
    llm.script = lambda exchange: exchange.answer(body, 503, retry_after="7")
    with pytest.raises(LLMBusy) as busy:
        ask(llm)
    assert (busy.value.code, busy.value.retry_after) == (code, "7")


def test_a_request_whose_time_is_up_is_told_so(llm):
    """In the service's own words: it knows how long it tried."""
    llm.script = lambda exchange: exchange.answer(error("deadline_exceeded"), 504)
    with pytest.raises(DeadlineExceeded, match="about deadline_exceeded"):
        ask(llm)


def test_no_time_at_all_is_told_as_a_moment(llm):
    """The service would refuse a number that is rounded to none."""
    llm.script = lambda exchange: exchange.answer(TOKEN_FRAME + DONE_FRAME)

    async def run():
        async with (
            gateway_to(llm.stream_url) as gateway,
            aclosing(gateway.stream(GENERATION, "r-1", timeout_s=0.0004)) as events,
        ):
            return [event async for event in events]

    assert asyncio.run(run()) == [TOKEN, DONE]
    assert llm.exchanges[-1].headers["x-huginn-timeout-s"] == "0.001"


def test_an_endless_error_is_not_read_to_its_end(llm):
    """Memory is bounded also where nothing was expected."""
    llm.script = lambda exchange: exchange.answer(b"x" * 3_000_000, 500)
    with pytest.raises(LLMMisbehaved, match="bytes"):
        ask(llm)


def test_siblings_keep_the_path_before_the_stream(llm):
    """Behind a prefix, the models and the readiness are behind the same one."""
    card = {"name": "m", "family": "mingru", "vocab_size": 65, "tokenizer": "char", "parameters": 9}
    card |= {"size_bytes": 36, "digest": "d", "default": True}

    async def script(exchange):
        await exchange.answer({"models": [card]} if exchange.path.endswith("models") else {"status": "ready"})

    llm.script = script

    async def run():
        async with gateway_to(f"{llm.url}/v2/llm/generate/stream") as gateway:
            [model] = await gateway.models("r-1")
            assert (model.name, model.default) == ("m", True)
            assert await gateway.ready("r-1")

    asyncio.run(run())
    assert [exchange.path for exchange in llm.exchanges] == ["/v2/llm/models", "/v2/llm/readyz"]


@pytest.mark.parametrize("body", [b"[]", b'{"models": [{"name": "m"}]}', b"\xff"])
def test_a_list_of_models_that_is_none_is_named(llm, body):
    """Half a card is no card."""
    llm.script = lambda exchange: exchange.answer(body)

    async def run():
        async with gateway_to(llm.stream_url) as gateway:
            with pytest.raises(LLMMisbehaved):
                await gateway.models("r-1")

    asyncio.run(run())


def test_readiness_does_not_wait_for_long(llm):
    """A probe has a deadline of its own, far shorter than a generation's silence."""
    llm.script = lambda exchange: exchange.until_client_leaves()

    async def run():
        async with asyncio.timeout(10), gateway_to(llm.stream_url, connect_timeout_s=0.2) as gateway:
            assert not await gateway.ready("r-1")

    asyncio.run(run())


def test_not_ready_is_a_no(llm):
    """Whatever the reason is."""
    llm.script = lambda exchange: exchange.answer(error("not_ready"), 503, retry_after="1")

    async def run():
        async with gateway_to(llm.stream_url) as gateway:
            assert not await gateway.ready("r-1")

    asyncio.run(run())
