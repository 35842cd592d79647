"""Several texts for one request: of each prompt, several of one prompt, or the best of them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager

from functions.backend.application.check_prompts import CheckPrompts
from functions.backend.application.generate_stream import GenerateStream
from functions.backend.application.generate_text import GenerateText, Take
from functions.backend.application.meter import Meter, unmetered
from functions.backend.application.time_limit import Deadline
from functions.backend.domain.errors import LLMError
from functions.backend.domain.events import Done, Event, StreamError, end_of
from functions.backend.domain.generation import Generation

# Of one request's texts so many are made at a time: the others' requests need places at the model service, too.
AT_ONCE = 8
# Events that wait for a client who reads slowly; then the texts wait as well.
_WAITING_EVENTS = 64

ChoiceEvents = AsyncIterator[tuple[int, Event]]


class GenerateChoices:
    """Makes several texts side by side, all of them or none."""

    def __init__(self, generate_text: GenerateText, check_prompts: CheckPrompts) -> None:
        self._generate_text = generate_text
        self._check_prompts = check_prompts

    async def __call__(
        self,
        generations: Sequence[Generation],
        takes: Sequence[Take],
        request_id: str,
        client: str = "",
        deadline: Deadline | None = None,
        meter: Meter = unmetered,
    ) -> tuple[Done, ...]:
        """Have each one's tokens taken by its own, and give the ends in this order; being cancelled ends them all.

        The deadline is that of all of them, however few are made at a time.

        Raises:
            LLMError: one of them could not be completed; the others were ended.
        """
        places, deadline = asyncio.Semaphore(AT_ONCE), deadline or Deadline()

        async def one(generation: Generation, take: Take) -> Done:
            async with places:
                return await self._generate_text(generation, take, request_id, client, deadline, meter)

        if len(generations) == 1:
            return (await one(generations[0], takes[0]),)
        await self._check_prompts(generations, request_id, deadline)
        tasks = [asyncio.create_task(one(*each)) for each in zip(generations, takes, strict=True)]
        try:
            return tuple(await asyncio.gather(*tasks))
        finally:
            await _end(tasks)


class StreamChoices:
    """Makes several texts side by side, and tells what happens to each, as it happens."""

    def __init__(self, generate_stream: GenerateStream, check_prompts: CheckPrompts) -> None:
        self._generate_stream = generate_stream
        self._check_prompts = check_prompts

    @asynccontextmanager
    async def __call__(
        self,
        generations: Sequence[Generation],
        request_id: str,
        client: str = "",
        deadline: Deadline | None = None,
        meter: Meter = unmetered,
    ) -> AsyncIterator[ChoiceEvents]:
        """Enter when the first event is there; iterate over which of them it is of, and the event.

        The last event is the Done of the text that ended last, or the StreamError of the one that ended all of them.

        Raises:
            LLMError: on entering, where nothing was generated; never while iterating.
        """
        deadline = deadline or Deadline()

        def stream(generation: Generation) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
            return self._generate_stream(generation, request_id, client, deadline, meter)

        async with AsyncExitStack() as stack:
            if len(generations) == 1:
                events = await stack.enter_async_context(stream(generations[0]))
                yield await stack.enter_async_context(aclosing(_numbered(events)))
            else:
                await self._check_prompts(generations, request_id, deadline)
                merged = await stack.enter_async_context(aclosing(_merged(generations, stream)))
                first = await anext(merged)
                if isinstance(first, LLMError):
                    raise first
                yield await stack.enter_async_context(aclosing(_to_the_end(first, merged, len(generations))))


async def _numbered(events: AsyncIterator[Event]) -> AsyncGenerator[tuple[int, Event]]:
    async for event in events:
        yield 0, event


async def _to_the_end(
    first: tuple[int, Event], rest: AsyncIterator[tuple[int, Event] | LLMError], count: int
) -> AsyncGenerator[tuple[int, Event]]:
    """Give the events until all of the texts, or one of them badly, have ended."""
    item: tuple[int, Event] | LLMError = first
    while True:
        if isinstance(item, LLMError):
            yield 0, end_of(item)
            return
        yield item
        count -= isinstance(item[1], Done)
        if isinstance(item[1], StreamError) or not count:
            return
        item = await anext(rest)


async def _merged(
    generations: Sequence[Generation],
    stream: Callable[[Generation], AbstractAsyncContextManager[AsyncIterator[Event]]],
) -> AsyncGenerator[tuple[int, Event] | LLMError]:
    """Give the events of all streams as they come, and the failure of one that could not begin; never ends itself."""
    waiting: asyncio.Queue[tuple[int, Event] | Exception] = asyncio.Queue(_WAITING_EVENTS)
    places = asyncio.Semaphore(AT_ONCE)

    async def read(index: int, generation: Generation) -> None:
        try:
            # Not asked for before there is a place: each has the time that is left by then.
            async with places, stream(generation) as events:
                async for event in events:
                    await waiting.put((index, event))
        except Exception as error:  # noqa: BLE001 - raised again where somebody listens
            await waiting.put(error)

    tasks = [asyncio.create_task(read(index, generation)) for index, generation in enumerate(generations)]
    try:
        while True:
            item = await waiting.get()
            if isinstance(item, Exception) and not isinstance(item, LLMError):
                raise item
            yield item
    finally:
        await _end(tasks)


async def _end(tasks: Sequence[asyncio.Task[Done]] | Sequence[asyncio.Task[None]]) -> None:
    """Cancel what still runs. Not before all have ended is everything closed that they had opened."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
