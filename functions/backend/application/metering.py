"""Around each generation: whether it may begin, and what it has used at its end."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Any, TypeVar

from functions.backend.application.held_place import HeldPlace
from functions.backend.application.key_store import KeyStore
from functions.backend.application.reservation import Reservation
from functions.backend.application.while_good import GoodFor, while_good
from functions.backend.domain.account import Account, Place
from functions.backend.domain.errors import QuotaExceeded, SharedQuotaExceeded
from functions.backend.domain.principal import Principal
from functions.backend.domain.quota import RateLimits
from functions.backend.domain.usage_total import UsageTotal

T = TypeVar("T")

# The end of a text waits for its settlement, but not for a store that says nothing.
_WAITS_S = 3.0


class Metering:
    """Lets requests begin as the quotas of those who send them allow. Who has no account is not counted.

    Args:
        store: where accounts are kept; None lets everybody in.
        memory_mb: of the model's function, on which its cost depends.
        good_for: knows keys; None where whoever was let in once stays.
        now: seconds since 1970.
        clock: seconds, which only grow, whatever is done to the other clock.
    """

    def __init__(
        self,
        store: KeyStore | None,
        memory_mb: int = 3008,
        good_for: GoodFor | None = None,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._memory_mb = memory_mb
        self._good_for = good_for
        self._now = now
        self._clock = clock
        # What is done at the store, whether or not somebody waits for it.
        self._working: set[asyncio.Task[Any]] = set()
        self._ending = asyncio.Event()

    @asynccontextmanager
    async def admit(
        self,
        principal: Principal,
        request_id: str,
        estimated_tokens: int,
        generations: int = 1,
    ) -> AsyncIterator[Reservation]:
        """Enter with so many tokens, prompts and answers together, taken; leaving gives back what was not needed.

        Up to then the request has a place of its own; a process that dies holds it for no more than PLACE_S.

        Raises:
            Unauthenticated: on leaving; the principal's key is not good any more, and what ran was cancelled.
            QuotaExceeded: on entering; nothing was taken.
            KeyStoreUnavailable: on entering; nothing is known.
        """
        store = self._store
        if store is None or principal.kind == "anonymous":
            yield Reservation()
            return
        began = self._now()
        name = secrets.token_hex(8)
        asked = Place.at(began, name, estimated_tokens)
        reserving = self._background(self._reserve(store, principal, asked, began, request_id))

        def give_back(taken: asyncio.Future[tuple[Account, list[HeldPlace]]]) -> None:
            if not taken.cancelled() and taken.exception() is None:
                self._give_back(taken.result()[1])

        try:
            account, held = await asyncio.shield(reserving)
        except asyncio.CancelledError:
            # The client has left; what the store may still take for it is given back.
            reserving.add_done_callback(give_back)
            raise
        renewing = [asyncio.create_task(each.renew()) for each in held]

        async def settle(usage: UsageTotal) -> RateLimits | None:
            for task in renewing:
                task.cancel()
            # Also when this very task is being cancelled: tokens that were made are counted, places are given back.
            for each in held:
                self._background(each.settle(usage))
            with suppress(TimeoutError):
                async with asyncio.timeout(_WAITS_S):
                    for each in held:
                        await each.tried.wait()
            own = held[0].settled
            return own.limits(principal.quota, self._now()) if own else None

        limits = account.limits(principal.quota, began)
        reservation = Reservation(limits, settle, self._clock, self._memory_mb, generations)
        try:
            async with while_good(principal, self._good_for) if self._good_for else nullcontext():
                yield reservation
        finally:
            await reservation.finish()

    async def _reserve(
        self, store: KeyStore, principal: Principal, asked: Place, now: float, request_id: str
    ) -> tuple[Account, list[HeldPlace]]:
        """Take the place in all accounts of the principal, or in none; give their own, and the places."""
        own, *shared = principal.accounts
        taken = await store.reserve(*own, asked, now)
        held = [HeldPlace(store, own[0], taken.places[asked.name], request_id, self._now, self._ending)]
        try:
            for name, quota in shared:
                account = await store.reserve(name, quota, asked, now)
                held.append(HeldPlace(store, name, account.places[asked.name], request_id, self._now, self._ending))
        except BaseException as error:
            self._give_back(held)
            if isinstance(error, QuotaExceeded):
                raise SharedQuotaExceeded(error) from error
            raise
        return taken, held

    def _give_back(self, held: Sequence[HeldPlace]) -> None:
        for each in held:
            self._background(each.settle(UsageTotal()))

    async def settled(self) -> None:
        """Return when nothing is left to be done at the store for requests that have ended: this process ends.

        When the caller waits no longer, it is given up, and the log tells what was lost.
        """
        self._ending.set()
        try:
            # What ends may begin another: a place is given back that was being taken.
            while self._working:
                await asyncio.wait(self._working)
        finally:
            for task in self._working:
                task.cancel()

    def _background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._working.add(task)  # or it might be collected before its end
        task.add_done_callback(self._working.discard)
        return task
