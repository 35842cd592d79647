"""The use case of the whole backend: a prompt in, events out, as they happen."""

import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, closing

from functions.backend.application.llm_gateway import LLMGateway
from functions.backend.application.meter import Meter, unmetered
from functions.backend.application.time_limit import TimeLimit, shorter
from functions.backend.domain.errors import LLMDisconnected, LLMError
from functions.backend.domain.events import Done, Event, StreamError, failure_of
from functions.backend.domain.generation import Generation


class GenerateStream:
    """Streams a generation so that it either fails before it begins, or begins and says how it ended."""

    def __init__(self, gateway: LLMGateway, max_seconds: float = math.inf) -> None:
        self._gateway = gateway
        self._max_seconds = max_seconds

    @asynccontextmanager
    async def __call__(
        self,
        generation: Generation,
        request_id: str,
        client: str = "",
        timeout_s: float | None = None,
        meter: Meter = unmetered,
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """Enter when the first event is there, and iterate from it to a Done or a StreamError; leaving ends the work.

        All of it takes no longer than `timeout_s`, and the moment that the model service needs to say so itself.

        Raises:
            LLMError: on entering, where nothing was generated; never while iterating.
        """
        timeout_s = shorter(timeout_s, self._max_seconds)
        with closing(TimeLimit(timeout_s)) as limit:
            async with (
                aclosing(meter(generation, self._gateway.stream(generation, request_id, client, timeout_s))) as source,
                aclosing(_told_to_the_end(await _first(source, limit), source, limit)) as events,
            ):
                yield events


async def _first(source: AsyncIterator[Event], limit: TimeLimit) -> Event:
    """Give the first event; a failure that comes first is raised, so that the answer can still be a refusal."""
    with limit:
        first = await anext(source, None)
    if first is None:
        raise LLMDisconnected
    if isinstance(first, StreamError):
        raise failure_of(first)
    return first


async def _told_to_the_end(first: Event, rest: AsyncIterator[Event], limit: TimeLimit) -> AsyncGenerator[Event]:
    """Give the events up to the first end among them; a failure of the source becomes that end."""
    event: Event | None = first
    try:
        while event is not None:
            yield event
            if isinstance(event, Done | StreamError):
                return
            with limit:
                event = await anext(rest, None)
        raise LLMDisconnected
    except LLMError as error:
        yield StreamError(error.code, error.message, error.retryable)
