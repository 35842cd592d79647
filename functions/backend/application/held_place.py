"""The place that one request has taken, until the store knows what it has used."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from functions.backend.application.key_store import KeyStore
from functions.backend.domain.account import Account, Place
from functions.backend.domain.errors import KeyStoreUnavailable
from functions.backend.domain.usage_total import UsageTotal

_log = logging.getLogger(__name__)

# A settlement that failed is tried again after a pause, each twice as long as the one before.
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0


class HeldPlace:
    """Settles a place, however often that has to be tried.

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
        self.tried = asyncio.Event()
        """Is set when settling was tried once."""
        self.settled: Account | None = None
        """The account when this was settled; None before."""

    async def settle(self, usage: UsageTotal) -> None:
        """Have the store keep what was used: tried again up to the place's end; what fails then is told in the log."""
        pause_s = _FIRST_PAUSE_S
        try:
            while not await self._settles(usage):
                self.tried.set()
                if self._now() + pause_s >= self._place.until:
                    break
                await self._pause(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        finally:
            self.tried.set()
            if self.settled is None:
                _log.warning("request %s: its usage could not be kept: %d tokens", self._request_id, usage.tokens)

    async def _settles(self, usage: UsageTotal) -> bool:
        try:
            self.settled = await self._store.settle(self._account, self._place, usage, self._now())
        except KeyStoreUnavailable:
            return False  # the store has told why
        return True

    async def _pause(self, seconds: float) -> None:
        if self._ending.is_set():
            await asyncio.sleep(_FIRST_PAUSE_S)
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), seconds)
