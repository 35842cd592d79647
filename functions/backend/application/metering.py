"""Around each generation: whether it may begin, and what it has used at its end."""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace

from functions.backend.application.key_store import KeyStore
from functions.backend.domain.account import Account, Place
from functions.backend.domain.errors import KeyStoreUnavailable
from functions.backend.domain.events import Done, Event, Token
from functions.backend.domain.principal import Principal
from functions.backend.domain.quota import RateLimits
from functions.backend.domain.usage_total import MB_PER_GB, USD_PER_GB_SECOND, UsageTotal

_log = logging.getLogger(__name__)


class Reservation:
    """What one request has taken; `limits` are its holder's as they stand with it.

    Args:
        limits: none for somebody whom nobody counts.
        elapsed_s: gives for how long the request runs; None for the same.
        memory_mb: of the model's function.
        settle: keeps what was used, and gives the rest back.
    """

    def __init__(
        self,
        limits: RateLimits = (),
        elapsed_s: Callable[[], float] | None = None,
        memory_mb: int = 0,
        settle: Callable[[UsageTotal], Awaitable[None]] | None = None,
    ) -> None:
        self.limits = limits
        self._settle = settle
        self._elapsed_s = elapsed_s
        self._memory_mb = memory_mb
        self._done = UsageTotal()
        # First and last position of each generation that has not told its end.
        self._open: dict[int, tuple[int, int]] = {}

    def note(self, event: Event, index: int = 0) -> None:
        """Count an event; of several generations, told apart by `index`, all, each up to its end or breaking off."""
        match event:
            case Token(position=position):
                self._open[index] = (self._open.get(index, (position,))[0], position)
            case Done():
                usage = event.usage
                self._done += UsageTotal(
                    prompt_tokens=usage.prompt_tokens,
                    cached_prompt_tokens=usage.cached_prompt_tokens,
                    completion_tokens=usage.completion_tokens,
                    cpu_seconds=usage.cpu_seconds,
                )
                self._open.pop(index, None)
            case _:
                # What has failed is counted as what is broken off.
                pass

    async def noting(self, events: AsyncIterator[Event]) -> AsyncGenerator[Event]:
        """Give the same events, counted; the end tells what it cost, and is told when the place is free again."""
        async for event in events:
            self.note(event)
            if isinstance(event, Done):
                told = self.costed(event)
                await self.finish()
                yield told
            else:
                yield event

    async def finish(self) -> None:
        """Settle what was used up to now: whoever learns of the end after this may begin again. Twice does nothing."""
        settle, self._settle = self._settle, None
        if settle is not None:
            await settle(self.usage())

    def costed(self, done: Done) -> Done:
        """Give the end of a generation with what its request has cost up to now."""
        if self._elapsed_s is None:
            return done
        total = self.usage()
        return replace(done, usage=replace(done.usage, gb_seconds=total.gb_seconds, cost_usd=total.cost_usd))

    def usage(self) -> UsageTotal:
        """Give what the request has used up to now; where nothing was generated, its waiting is nobody's cost."""
        total = sum((_broken_off(*positions) for positions in self._open.values()), start=self._done)
        elapsed_s = self._elapsed_s() if self._elapsed_s and total.tokens else 0.0
        gb_seconds = elapsed_s * self._memory_mb / MB_PER_GB
        return total + UsageTotal(requests=1, gb_seconds=gb_seconds, cost_usd=gb_seconds * USD_PER_GB_SECOND)


def _broken_off(first: int, last: int) -> UsageTotal:
    # Positions count from the prompt's first token, and the prompt was read before any was told.
    return UsageTotal(prompt_tokens=first, completion_tokens=last - first + 1)


class Metering:
    """Lets generations begin as the quotas of those who ask for them allow. Who has no account is not counted.

    Args:
        store: where accounts are kept; None lets everybody in.
        memory_mb: of the model's function, on which its cost depends.
        now: seconds since 1970.
    """

    def __init__(self, store: KeyStore | None, memory_mb: int = 3008, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._memory_mb = memory_mb
        self._now = now
        self._settling: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def admit(self, principal: Principal, request_id: str, estimated_tokens: int) -> AsyncIterator[Reservation]:
        """Enter with so many tokens, prompt and answer together, taken; leaving gives back what was not needed.

        Raises:
            QuotaExceeded: on entering; nothing was taken.
            KeyStoreUnavailable: on entering; nothing is known.
        """
        store = self._store
        if store is None or principal.kind == "anonymous":
            yield Reservation()
            return
        began = self._now()
        place = Place.at(began, secrets.token_hex(8), estimated_tokens)
        reserving = asyncio.ensure_future(store.reserve(principal.account, principal.quota, place, began))
        try:
            account = await asyncio.shield(reserving)
        except asyncio.CancelledError:
            # The client has left; what the store may still take for it is given back.
            reserving.add_done_callback(lambda taken: self._give_back(taken, store, principal, place, request_id))
            raise

        async def settle(usage: UsageTotal) -> None:
            # Also when this very task is being cancelled: tokens that were made are counted, places are given back.
            await asyncio.shield(self._background(self._settle(store, principal, place, usage, request_id)))

        limits = account.limits(principal.quota, began)
        reservation = Reservation(limits, lambda: self._now() - began, self._memory_mb, settle)
        try:
            yield reservation
        finally:
            await reservation.finish()

    def _give_back(
        self, taken: asyncio.Future[Account], store: KeyStore, principal: Principal, place: Place, request_id: str
    ) -> None:
        if not taken.cancelled() and taken.exception() is None:
            self._background(self._settle(store, principal, place, UsageTotal(), request_id))

    def _background(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._settling.add(task)  # or it might be collected before its end
        task.add_done_callback(self._settling.discard)
        return task

    async def _settle(
        self, store: KeyStore, principal: Principal, place: Place, usage: UsageTotal, request_id: str
    ) -> None:
        try:
            await store.settle(principal.account, place, usage, self._now())
        except KeyStoreUnavailable as error:
            # The text is written and sent: its reader is not told of our book-keeping.
            _log.warning("request %s: its usage could not be kept: %s", request_id, error.message)
