"""What one request has taken of its sender's quota, and what its generations use of it."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace

from functions.backend.domain.errors import LLMError, OutOfTime
from functions.backend.domain.events import Done, Event, StreamError, Token, failure_of
from functions.backend.domain.generation import Generation
from functions.backend.domain.quota import RateLimits
from functions.backend.domain.usage_total import MB_PER_GB, USD_PER_GB_SECOND, UsageTotal

Settle = Callable[[UsageTotal], Awaitable[RateLimits | None]]


class Reservation:
    """What one request has taken; `limits` are its holder's as they stand with it, and without it when it is settled.

    Args:
        limits: none for somebody whom nobody counts.
        settle: keeps what was used, gives the rest back, and tells the limits after that, None where it could not yet;
            none where nobody counts.
        clock: seconds, which only grow.
        memory_mb: of the model's function.
        generations: how many the request asks for; the end of the last one is the end of what it uses.
    """

    def __init__(
        self,
        limits: RateLimits = (),
        settle: Settle | None = None,
        clock: Callable[[], float] = lambda: 0.0,
        memory_mb: int = 0,
        generations: int = 1,
    ) -> None:
        self.limits = limits
        self._settle = settle
        self._counts = settle is not None
        self._clock = clock
        self._memory_mb = memory_mb
        self._running = generations
        self._watched: list[_Watch] = []
        self._began = clock()
        self._read = UsageTotal(requests=1)

    def metered(self, generation: Generation, events: AsyncGenerator[Event]) -> AsyncGenerator[Event]:
        """Give the same events, counted up to their end or breaking off, whoever breaks them off.

        An end tells what the request has cost up to then. The last of its generations is told to be at its end when
        the place is free again: who reads that may begin anew.
        """
        return self._metered(generation, events) if self._counts else events

    async def _metered(self, generation: Generation, events: AsyncGenerator[Event]) -> AsyncGenerator[Event]:
        watch = _Watch(generation, self._clock)
        self._watched.append(watch)
        try:
            async with aclosing(events):
                async for event in events:
                    watch.note(event)
                    if not isinstance(event, Done):
                        yield event
                        continue
                    self._running -= 1
                    told = self._costed(event)
                    if not self._running:
                        await self.finish()
                    yield told
                    return
        except LLMError as error:
            watch.fail(error)
            raise
        finally:
            watch.end()

    def count_read(self, tokens: int) -> None:
        """Count tokens that were cut or put together, which is no generation; the time up to now is theirs."""
        self._read += UsageTotal(prompt_tokens=tokens) + self._memory(self._clock() - self._began)

    async def finish(self) -> None:
        """Settle what was used up to now: whoever learns of the end after this may begin again. Twice does nothing."""
        settle, self._settle = self._settle, None
        if settle is not None:
            self.limits = await settle(self.usage()) or self.limits

    def usage(self) -> UsageTotal:
        """Give what the request has used up to now, all of its generations together."""
        total = sum((watch.usage() for watch in self._watched), start=self._read)
        # Each has an instance of the model's function for itself while it lasts.
        return total + self._memory(sum(watch.elapsed_s() for watch in self._watched))

    def _memory(self, seconds: float) -> UsageTotal:
        gb_seconds = seconds * self._memory_mb / MB_PER_GB
        return UsageTotal(gb_seconds=gb_seconds, cost_usd=gb_seconds * USD_PER_GB_SECOND)

    def _costed(self, done: Done) -> Done:
        total = self.usage()
        return replace(done, usage=replace(done.usage, gb_seconds=total.gb_seconds, cost_usd=total.cost_usd))


class _Watch:
    """One generation, from when the model service is asked for it."""

    def __init__(self, generation: Generation, clock: Callable[[], float]) -> None:
        # What reading the prompt costs where the service never came to tell: what was taken for it.
        self._prompt_tokens = generation.prompt.most_tokens
        self._clock = clock
        self._began = clock()
        self._ended: float | None = None
        self._first: int | None = None
        self._last = 0
        self._done: Done | None = None
        self._was_refused = False

    def note(self, event: Event) -> None:
        match event:
            case Token(position=position):
                if self._first is None:
                    self._first = position
                self._last = position
            case Done():
                self._done = event
                self.end()
            case StreamError():
                self.fail(failure_of(event))

    def fail(self, error: LLMError) -> None:
        """Have it end like that: what was refused, or broke over there, is nobody's cost but for what was told."""
        self._was_refused = not isinstance(error, OutOfTime)

    def end(self) -> None:
        if self._ended is None:
            self._ended = self._clock()

    def elapsed_s(self) -> float:
        """Give for how long it ran; where nothing was used, its waiting is nobody's cost."""
        ended = self._clock() if self._ended is None else self._ended
        return ended - self._began if self.usage().tokens else 0.0

    def usage(self) -> UsageTotal:
        if self._done is not None:
            usage = self._done.usage
            return UsageTotal(
                prompt_tokens=usage.prompt_tokens,
                cached_prompt_tokens=usage.cached_prompt_tokens,
                completion_tokens=usage.completion_tokens,
                cpu_seconds=usage.cpu_seconds,
            )
        if self._first is not None:
            # Positions count from the prompt's first token, and the prompt was read before any was told.
            return UsageTotal(prompt_tokens=self._first, completion_tokens=self._last - self._first + 1)
        # Its client left, or its time was up, while the prompt was read: that was not for nothing.
        return UsageTotal(prompt_tokens=0 if self._was_refused else self._prompt_tokens)
