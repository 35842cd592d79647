"""A generation as asyncio sees it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Self

from functions.llm.inference.engine import Delivery, Engine, Task
from functions.llm.inference.generation import Event, Generation


class GenerationStream(AsyncIterator[list[Event]]):
    """The events of one generation, in the batches that the engine makes.

    What is not fetched is kept, and bounded by the request's max_tokens: a slow client never slows the others.
    """

    def __init__(
        self, engine: Engine, generation: Generation, *, client: str = "", timeout_s: float | None = None
    ) -> None:
        """Submit ``generation``, within a running event loop; see `Engine.submit` for the rest."""
        self.generation = generation
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
        self._ended = False
        self._task: Task = engine.submit(generation, self._deliver, client=client, timeout_s=timeout_s)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Event]:
        """Return the next events; raise what made the generation fail."""
        if self._ended:
            raise StopAsyncIteration
        delivery = await self._deliveries.get()
        if isinstance(delivery, list):
            return delivery
        self._ended = True
        if delivery is None:
            raise StopAsyncIteration
        raise delivery

    @property
    def started_at(self) -> float | None:
        """When its prompt began to be read, by `time.monotonic`; None while it waits for a place."""
        return self._task.started_at

    def cancel(self) -> None:
        """End the generation; whoever awaits its events sees the end."""
        self._engine.cancel(self._task)
        self._deliveries.put_nowait(None)

    def _deliver(self, delivery: Delivery) -> None:
        try:
            self._loop.call_soon_threadsafe(self._deliveries.put_nowait, delivery)
        except RuntimeError:
            # The loop has been closed under us: nobody listens any more.
            self._task.cancelled = True
