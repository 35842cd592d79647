"""The use case of the whole backend: a prompt in, events out, as they happen."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, closing

from functions.backend.application.llm_gateway import LLMGateway
from functions.backend.application.meter import Meter, unmetered
from functions.backend.application.time_limit import Deadline, TimeLimit
from functions.backend.domain.errors import LLMDisconnected, LLMError
from functions.backend.domain.events import Done, Event, StreamError, end_of, failure_of
from functions.backend.domain.generation import Generation


class GenerateStream:
    """Streams a generation so that it either fails before it begins, or begins and says how it ended."""

    def __init__(self, gateway: LLMGateway) -> None:
        self._gateway = gateway

    @asynccontextmanager
    async def __call__(
        self,
        generation: Generation,
        request_id: str,
        client: str = "",
        deadline: Deadline | None = None,
        meter: Meter = unmetered,
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """Enter when the first event is there, and iterate from it to a Done or a StreamError; leaving ends the work.

        All of it is over at the deadline, and the moment that the model service needs to say so itself.

        Raises:
            LLMError: on entering, where nothing was generated; never while iterating.
        """
        deadline = deadline or Deadline()
        with closing(TimeLimit(deadline)) as limit:
            told = self._gateway.stream(generation, request_id, client, deadline.left())
            async with aclosing(meter(generation, told)) as source:
                first = await _first(source, limit, deadline)
                async with aclosing(_told_to_the_end(first, source, limit, deadline)) as events:
                    yield events


async def _first(source: AsyncIterator[Event], limit: TimeLimit, deadline: Deadline) -> Event:
    """Give the first event; a failure that comes first is raised, so that the answer can still be a refusal."""
    try:
        with limit:
            first = await anext(source, None)
    except LLMError as error:
        raise deadline.judge(error) from error.__cause__
    if first is None:
        raise LLMDisconnected
    if isinstance(first, StreamError):
        raise deadline.judge(failure_of(first))
    return first


async def _told_to_the_end(
    first: Event, rest: AsyncIterator[Event], limit: TimeLimit, deadline: Deadline
) -> AsyncGenerator[Event]:
    """Give the events up to the first end among them; a failure of the source becomes that end."""
    event: Event | None = first
    try:
        while event is not None:
            yield deadline.judge_end(event) if isinstance(event, StreamError) else event
            if isinstance(event, Done | StreamError):
                return
            with limit:
                event = await anext(rest, None)
        raise LLMDisconnected
    except LLMError as error:
        yield end_of(error)
