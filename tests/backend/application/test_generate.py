"""The use cases keep their promise whatever the model service does."""

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.backend.application.generate_stream import GenerateStream
from functions.backend.application.generate_text import GenerateText
from functions.backend.domain.errors import LLMDisconnected, LLMError, LLMFailed, LLMTimeout
from functions.backend.domain.events import Done, StreamError, Token, Usage
from functions.backend.domain.generation import Generation
from functions.backend.domain.prompt import Prompt, PromptLimits

GENERATION = Generation(Prompt("ROMEO:", PromptLimits(100)))
TOKEN = Token(6, 1, " th")
DONE = Done("stop", Usage(6, 1, 7), 42, "muninn-char")
ERROR = StreamError("internal", "It broke.", retryable=True)

# What a model service may do, in order; an exception is raised where it stands.
told = st.lists(st.sampled_from([TOKEN, DONE, ERROR, LLMTimeout("late"), LLMDisconnected()]), max_size=5)


class ScriptedGateway:
    """Tells what it is given, and knows whether it was closed."""

    def __init__(self, script):
        self.script = script
        self.asked = []
        self.closed = False

    async def stream(self, generation, request_id, client="", timeout_s=None):
        self.asked.append((generation, request_id))
        try:
            for event in self.script:
                await asyncio.sleep(0)
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self.closed = True


async def gather(gateway):
    """Give all events, or the error that came instead of them."""
    try:
        async with GenerateStream(gateway)(GENERATION, "r-1") as events:
            try:
                return [event async for event in events]
            except LLMError as error:
                raise AssertionError("a stream that began failed") from error
    except LLMError as error:
        return error


@given(told)
def test_a_stream_fails_before_it_begins_or_says_how_it_ended(script):
    """Exactly one end, and it is last; nothing is added to the tokens, and the source is always closed."""
    gateway = ScriptedGateway(script)
    result = asyncio.run(gather(gateway))
    assert gateway.closed
    if not script or script[0] is ERROR or isinstance(script[0], Exception):
        assert isinstance(result, LLMError)
        return
    *tokens, end = result
    assert isinstance(end, Done | StreamError)
    assert tokens == script[: len(tokens)]
    assert all(isinstance(token, Token) for token in tokens)
    follows = script[len(tokens)] if len(script) > len(tokens) else LLMDisconnected()
    assert end == follows or end.code == follows.code


@given(told)
def test_a_whole_text_is_whole_or_an_error(script):
    """Half a text never passes for a text."""
    gateway = ScriptedGateway(script)
    ends = [event for event in script if event is not TOKEN]
    taken = []
    if ends[:1] == [DONE]:
        assert asyncio.run(GenerateText(gateway)(GENERATION, taken.append, "r-1")) == DONE
        assert taken == script[: script.index(DONE)]
    else:
        with pytest.raises(LLMError) as failure:
            asyncio.run(GenerateText(gateway)(GENERATION, taken.append, "r-1"))
        assert failure.value.code == (ends[0].code if ends else LLMDisconnected.code)
    assert gateway.closed


def test_an_error_that_comes_first_keeps_its_own_words():
    """The model service knows better than we do what is wrong with it."""
    error = asyncio.run(gather(ScriptedGateway([ERROR])))
    assert isinstance(error, LLMFailed)
    assert (error.code, error.message, error.retryable) == (ERROR.code, ERROR.message, ERROR.retryable)


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_leaving_early_closes_the_source(taken):
    """A reader that has enough, or never begins, ends the generation."""
    gateway = ScriptedGateway([TOKEN] * 5)

    async def take():
        async with GenerateStream(gateway)(GENERATION, "r-1") as events:
            for _ in range(taken):
                await anext(events)
            assert not gateway.closed
        assert gateway.closed

    asyncio.run(take())


def test_cancelling_closes_the_source():
    """A reader that is cancelled while it waits ends the generation."""

    class SilentGateway(ScriptedGateway):
        async def stream(self, generation, request_id, client="", timeout_s=None):
            try:
                yield TOKEN
                await asyncio.Event().wait()
            finally:
                self.closed = True

    gateway = SilentGateway([])

    async def cancel():
        reading = asyncio.create_task(gather(gateway))
        await asyncio.sleep(0.01)
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
        assert gateway.closed

    asyncio.run(cancel())


def test_the_request_reaches_the_gateway_as_it_is():
    """Nothing is lost between the controller and the port."""
    gateway = ScriptedGateway([TOKEN, DONE])
    asyncio.run(gather(gateway))
    assert gateway.asked == [(GENERATION, "r-1")]
