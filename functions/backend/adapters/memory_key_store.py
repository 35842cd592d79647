"""Keys and accounts in this process alone: for the sessions of a backend that has no store, and for tests."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from functions.backend.domain.account import Account, Place
from functions.backend.domain.key import Key
from functions.backend.domain.quota import Quota
from functions.backend.domain.usage_total import UsageTotal

# Every reader of the page is an account; the one that was used longest ago is forgotten.
MAX_ACCOUNTS = 10_000


class MemoryKeyStore:
    """A KeyStore that forgets all at the end."""

    def __init__(self) -> None:
        self._keys: dict[str, Key] = {}
        self._accounts: OrderedDict[str, tuple[Account, UsageTotal]] = OrderedDict()

    async def find(self, key_id: str) -> Key | None:
        """Give the key of that id; see the port."""
        return self._keys.get(key_id)

    async def add(self, key: Key) -> bool:
        """Keep a new key; see the port."""
        return self._keys.setdefault(key.id, key) is key

    async def revoke(self, key_id: str, now: float) -> bool:
        """Let the key's holder in no more; see the port."""
        key = self._keys.get(key_id)
        if key is not None and key.revoked is None:
            self._keys[key_id] = replace(key, revoked=now)
        return key is not None

    async def keys(self) -> Sequence[Key]:
        """Give all keys; see the port."""
        return sorted(self._keys.values(), key=lambda key: key.created)

    async def reserve(self, account: str, quota: Quota, place: Place, now: float) -> Account:
        """Take the place and its tokens; see the port."""
        before, total = self._of(account)
        after = before.admit(quota, place, now)
        self._keep(account, after, total)
        return after

    async def renew(self, account: str, name: str, until: float) -> bool:
        """Have the place last longer; see the port."""
        before, total = self._of(account)
        if name not in before.places:
            return False
        renewed = replace(before.places[name], until=until)
        self._keep(account, replace(before, places={**before.places, name: renewed}), total)
        return True

    async def settle(self, account: str, place: Place, usage: UsageTotal, now: float) -> Account:
        """Give the place back; see the port."""
        before, total = self._of(account)
        if place.name in before.places:
            self._keep(account, before.settle(place, usage.tokens), total + usage)
        return self._of(account)[0].at(now)

    async def totals(self, accounts: Sequence[str]) -> Sequence[UsageTotal]:
        """Give what each of these accounts has used; see the port."""
        return [self._of(account)[1] for account in accounts]

    async def aclose(self) -> None:
        """Do nothing: there is nothing open."""

    def _of(self, account: str) -> tuple[Account, UsageTotal]:
        return self._accounts.get(account, (Account(), UsageTotal()))

    def _keep(self, name: str, account: Account, total: UsageTotal) -> None:
        self._accounts[name] = (account, total)
        self._accounts.move_to_end(name)
        while len(self._accounts) > MAX_ACCOUNTS:
            self._accounts.popitem(last=False)
