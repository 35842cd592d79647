"""A generation as asyncio sees it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Self

from functions.llm.inference.engine import Delivery, Engine, GivenUp, Task
from functions.llm.inference.errors import SlowReaderError
from functions.llm.inference.generation import Event, Generation, Token

# Tokens, and each alternative of one counts as another: some 15 MB. An answer of the usual kind has 4096 at most.
MAX_UNREAD = 100_000
PATIENCE_S = 30.0


class GenerationStream(AsyncIterator[list[Event]]):
    """The events of one generation, in the batches that the engine makes.

    What is not fetched is kept: a slow client never slows the others. Who is ever further behind, or takes nothing for
    a while, is given up, so that what is kept is bounded in size and in time.
    """

    def __init__(
        self,
        engine: Engine,
        generation: Generation,
        *,
        client: str = "",
        timeout_s: float | None = None,
        max_unread: int = MAX_UNREAD,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Submit ``generation``, within a running event loop; see `Engine.submit` for the rest.

        Args:
            engine: who answers.
            generation: what is to be answered.
            client: whose it is.
            timeout_s: how long it may take.
            max_unread: how many tokens and alternatives may wait to be fetched.
            patience_s: how long any of them may.
        """
        self.generation = generation
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
        self._ended = False
        self._max_unread = max_unread
        self._unread = 0
        self._unread_since = 0.0
        self._patience_s = patience_s
        self._timer = self._loop.call_later(patience_s, self._look_at_the_reader)
        self._task: Task = engine.submit(generation, self._deliver, client=client, timeout_s=timeout_s)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Event]:
        """Return the next events; raise what made the generation fail, and `SlowReaderError` for one who was slow."""
        if self._ended:
            raise StopAsyncIteration
        delivery = await self._deliveries.get()
        self._unread_since = self._loop.time()
        if isinstance(delivery, list):
            self._unread -= _weight(delivery)
            return delivery
        self._ended = True
        self._timer.cancel()
        if delivery is None:
            raise StopAsyncIteration
        raise delivery

    @property
    def started_at(self) -> float | None:
        """When its prompt began to be read, by `time.monotonic`; None while it waits for a place."""
        return self._task.started_at

    def cancel(self, reason: GivenUp = "cancelled") -> None:
        """End the generation; whoever awaits its events sees the end. The first reason counts."""
        self._engine.cancel(self._task, reason)
        self._timer.cancel()
        self._deliveries.put_nowait(None)

    def _deliver(self, delivery: Delivery) -> None:
        try:
            self._loop.call_soon_threadsafe(self._keep, delivery)
        except RuntimeError:
            # The loop has been closed under us: nobody listens any more.
            self._task.give_up("cancelled")

    def _keep(self, delivery: Delivery) -> None:
        if self._unread > self._max_unread:
            return  # the reader was given up
        if self._deliveries.empty():
            self._unread_since = self._loop.time()
        if isinstance(delivery, list):
            self._unread += _weight(delivery)
        self._deliveries.put_nowait(delivery)
        if self._unread > self._max_unread:
            self._give_up()

    def _look_at_the_reader(self) -> None:
        waited_s = 0.0 if self._deliveries.empty() else self._loop.time() - self._unread_since
        if waited_s >= self._patience_s:
            self._give_up()
        else:
            self._timer = self._loop.call_later(self._patience_s - waited_s, self._look_at_the_reader)

    def _give_up(self) -> None:
        self._engine.cancel(self._task, "slow_reader")
        self._timer.cancel()
        while not self._deliveries.empty():
            self._deliveries.get_nowait()
        # Whatever else comes is not kept.
        self._unread = self._max_unread + 1
        self._deliveries.put_nowait(SlowReaderError())


def _weight(events: list[Event]) -> int:
    # Alternatives are what makes an event large; all of an answer's have as many.
    last = events[-1]
    if not isinstance(last, Token):
        last = events[0]
    return len(events) * (1 + len(last.scores.top) if isinstance(last, Token) and last.scores else 1)
