"""Who asks: the holder of a key, or a reader of the page."""

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
        now: seconds since 1970.
    """

    def __init__(
        self,
        store: KeyStore | None,
        session_secrets: Sequence[str],
        session_quota: Quota,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._session_secrets = session_secrets
        self._session_quota = session_quota
        self._now = now
        self._remembered: dict[str, tuple[float, Key | None]] = {}

    async def of_key(self, text: str) -> Principal:
        """Give the holder of the key with this text.

        Raises:
            Unauthenticated: there is no such key, or it was revoked, or its time is over; which, is not told.
            KeyStoreUnavailable: nobody can say.
        """
        key_id = id_of(text)
        key = await self._find(key_id) if key_id is not None else None
        if not matches(text, key.digest if key else _NOBODY) or key is None or not key.is_good(self._now()):
            raise Unauthenticated(_REFUSAL)
        return key.principal

    def of_session(self, cookie: str) -> Principal:
        """Give the reader whose session the cookie is.

        Raises:
            Unauthenticated: nobody of ours has made it, or its time is over.
        """
        sid = read_session(cookie, self._session_secrets, self._now())
        if sid is None:
            raise Unauthenticated(_NO_SESSION)
        return Principal(sid, "session", frozenset({GENERATE}), self._session_quota)

    async def _find(self, key_id: str) -> Key | None:
        if self._store is None:
            return None
        now = self._now()
        at, key = self._remembered.get(key_id, (-REMEMBER_S, None))
        if not 0 <= now - at < REMEMBER_S:
            key = await self._store.find(key_id)
            if len(self._remembered) >= _REMEMBERED:
                # Only somebody who tries ids fills it; whoever is good is looked up again.
                self._remembered.clear()
            self._remembered[key_id] = (now, key)
        return key
