"""Who asks: the holder of a key, or a reader of the page."""

import asyncio
import time
from collections.abc import Callable, Sequence

from functions.backend.application.key_store import KeyStore
from functions.backend.domain.errors import Unauthenticated
from functions.backend.domain.key import Key, id_of, matches
from functions.backend.domain.principal import GENERATE, Principal
from functions.backend.domain.quota import Quota
from functions.backend.domain.session import read_session

# For so long a revoked key may still be let in, and an unknown one kept out.
REMEMBER_S = 5.0
_REMEMBERED = 10_000
# What a text is compared with that names no key: it takes as long, and none matches.
_NOBODY = bytes(32)
_REFUSAL = "The API key is unknown, or no longer good. Ask whoever runs this for one (`huginn keys new NAME`)."
_NO_SESSION = "The page's session is over. Load the page again."


class Authentication:
    """Knows keys by the store, and sessions by their secrets.

    Args:
        store: where keys are kept; None where there are none.
        session_secrets: any of them may have signed a session; without one there are no sessions.
        session_quota: what each session may use.
        all_sessions_quota: what all of them together may use; None is no limit.
        now: seconds since 1970.
    """

    def __init__(
        self,
        store: KeyStore | None,
        session_secrets: Sequence[str],
        session_quota: Quota,
        all_sessions_quota: Quota | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._session_secrets = session_secrets
        self._session_quota = session_quota
        self._all_sessions_quota = all_sessions_quota
        self._now = now
        self._remembered: dict[str, tuple[float, Key | None]] = {}
        self._looking: dict[str, asyncio.Task[tuple[float, Key | None]]] = {}

    async def of_key(self, text: str) -> Principal:
        """Give the holder of the key with this text.

        Raises:
            Unauthenticated: there is no such key, or it was revoked, or its time is over; which, is not told.
            KeyStoreUnavailable: nobody can say.
        """
        key_id = id_of(text)
        _, key = await self._find(key_id) if key_id is not None else (0.0, None)
        if not matches(text, key.digest if key else _NOBODY) or key is None or not key.is_good(self._now()):
            raise Unauthenticated(_REFUSAL)
        return key.principal

    async def good_for(self, key_id: str) -> float:
        """Give for how many seconds from now the key is good, as far as is known: then it is to be asked for again.

        Raises:
            Unauthenticated: it is no longer good.
            KeyStoreUnavailable: nobody can say.
        """
        at, key = await self._find(key_id)
        now = self._now()
        if key is None or not key.is_good(now):
            raise Unauthenticated(_REFUSAL)
        until = at + REMEMBER_S if key.expires is None else min(at + REMEMBER_S, key.expires)
        return max(0.0, until - now)

    def of_session(self, cookie: str) -> Principal:
        """Give the reader whose session the cookie is.

        Raises:
            Unauthenticated: nobody of ours has made it, or its time is over.
        """
        sid = read_session(cookie, self._session_secrets, self._now())
        if sid is None:
            raise Unauthenticated(_NO_SESSION)
        return Principal(sid, "session", frozenset({GENERATE}), self._session_quota, self._all_sessions_quota)

    async def _find(self, key_id: str) -> tuple[float, Key | None]:
        """Give the key, and when it was looked up, which is no longer ago than it may be remembered."""
        now = self._now()
        found = self._remembered.get(key_id)
        if found is not None and 0 <= now - found[0] < REMEMBER_S:
            return found
        # Hundreds of answers may run for one key, and all of them want to know at the same moment.
        looking = self._looking.get(key_id)
        if looking is None:
            looking = self._looking[key_id] = asyncio.create_task(self._look_up(key_id, now))
            looking.add_done_callback(lambda _: self._looking.pop(key_id))
        return await asyncio.shield(looking)

    async def _look_up(self, key_id: str, now: float) -> tuple[float, Key | None]:
        found = now, await self._store.find(key_id) if self._store is not None else None
        if len(self._remembered) >= _REMEMBERED:
            # Only somebody who tries ids fills it; whoever is good is looked up again.
            self._remembered.clear()
        self._remembered[key_id] = found
        return found
