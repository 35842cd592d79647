"""The place that one request has taken, until the store knows what it has used."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from functions.backend.application.key_store import KeyStore
from functions.backend.domain.account import PLACE_S, RENEW_EVERY_S, Account, Place
from functions.backend.domain.errors import KeyStoreUnavailable
from functions.backend.domain.quota import NO_LIMITS
from functions.backend.domain.usage_total import UsageTotal

_log = logging.getLogger(__name__)

# A renewal that failed is tried again after this.
_RENEW_AGAIN_S = 5.0
# A settlement that failed is tried again after a pause, each twice as long as the one before.
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0


class HeldPlace:
    """Renews a place while its request runs, and settles it at the end, however often that has to be tried.

    Args:
        store: where it was taken.
        account: whose it is.
        place: as it is in the account.
        request_id: by which the log names it.
        now: seconds since 1970.
        ending: is set when the process ends: pauses are short then.
    """

    def __init__(
        self,
        store: KeyStore,
        account: str,
        place: Place,
        request_id: str,
        now: Callable[[], float],
        ending: asyncio.Event,
    ) -> None:
        self._store = store
        self._account = account
        self._place = place
        self._request_id = request_id
        self._now = now
        self._ending = ending
        self._is_asked = False
        self.tried = asyncio.Event()
        """Is set when settling was tried once."""
        self.settled: Account | None = None
        """The account when this was settled; None before."""

    async def renew(self) -> None:
        """Have the place last until this is cancelled. What fails is tried again: no text ends of it."""
        pause_s = RENEW_EVERY_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = RENEW_EVERY_S if await self._renews() else _RENEW_AGAIN_S

    async def settle(self, usage: UsageTotal) -> None:
        """Have the store keep what was used: tried again for as long as places last; what fails is told in the log."""
        pause_s, until = _FIRST_PAUSE_S, self._now() + PLACE_S
        try:
            while not await self._settles(usage):
                self.tried.set()
                if self._now() + pause_s >= until:
                    break
                await self._pause(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        finally:
            self.tried.set()
            if self.settled is None:
                _log.warning("request %s: its usage could not be kept: %d tokens", self._request_id, usage.tokens)

    async def _renews(self) -> bool:
        now = self._now()
        renewed = replace(self._place, until=now + PLACE_S)
        try:
            if not await self._store.renew(self._account, renewed.name, renewed.until):
                # Given up, because the store was away for long. It is taken again, whatever the quota says: it is used.
                account = await self._store.reserve(self._account, NO_LIMITS, renewed, now)
                renewed = account.places[renewed.name]
        except KeyStoreUnavailable:
            return False  # the store has told why
        self._place = renewed
        return True

    async def _settles(self, usage: UsageTotal) -> bool:
        # One that was given up would not be counted. One that may be settled must not be taken again.
        if not self._is_asked and self._now() >= self._place.until and not await self._renews():
            return False
        self._is_asked = True
        try:
            self.settled = await self._store.settle(self._account, self._place, usage, self._now())
        except KeyStoreUnavailable:
            return False
        return True

    async def _pause(self, seconds: float) -> None:
        if self._ending.is_set():
            await asyncio.sleep(_FIRST_PAUSE_S)
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), seconds)
