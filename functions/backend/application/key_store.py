"""The port to where keys and accounts are kept."""

from collections.abc import Sequence
from typing import Protocol

from functions.backend.domain.account import Account, Place
from functions.backend.domain.key import Key
from functions.backend.domain.quota import Quota
from functions.backend.domain.usage_total import UsageTotal


class KeyStore(Protocol):
    """Keys by their id, and accounts by their name; an account that nobody has used is an empty one.

    Everything here may raise KeyStoreUnavailable.
    """

    async def find(self, key_id: str) -> Key | None:
        """Give the key of that id, also one that is no longer good."""
        ...

    async def add(self, key: Key) -> bool:
        """Keep a new key, and say whether its id was free."""
        ...

    async def revoke(self, key_id: str, now: float) -> bool:
        """Let the key's holder in no more, and say whether there is such a key."""
        ...

    async def keys(self) -> Sequence[Key]:
        """Give all keys, the oldest first."""
        ...

    async def reserve(self, account: str, quota: Quota, place: Place, now: float) -> Account:
        """Take the place and its tokens, all or nothing, also between processes; give the account after that.

        The place in it, which is the one to settle, is of the account's windows: another host's clock may be ahead.

        Raises:
            QuotaExceeded: they would be more than the quota allows.
        """
        ...

    async def renew(self, account: str, name: str, until: float) -> bool:
        """Have the place of that name last up to `until`, and say whether it was there; given up, it is not."""
        ...

    async def settle(self, account: str, place: Place, usage: UsageTotal, now: float) -> Account:
        """Give the place back, and what is left of its tokens; add the usage to the total; give the account after that.

        A place that is not there, for it was settled before or given up, changes nothing: who does not know whether it
        was done may ask again.
        """
        ...

    async def totals(self, accounts: Sequence[str]) -> Sequence[UsageTotal]:
        """Give what each of these accounts has used since it is there."""
        ...

    async def aclose(self) -> None:
        """Let go of files and connections; a later call opens them again."""
        ...
