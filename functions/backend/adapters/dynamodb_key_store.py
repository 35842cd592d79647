"""Keys and accounts in a table of DynamoDB, which all instances of the backend share.

An item of the partition `keys` is a key, by its id. An item of a partition of its own, `key:ID` or `session:ID`, is an
account. What an account holds is changed by conditional updates alone: each says what it takes for granted, and what it
adds; DynamoDB does it or tells what is the case. So no update is lost, and one write is enough in the usual case.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.UpdateExpressions.html
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from functions.backend.adapters.dynamodb import ConditionFailed, DynamoDB, Item
from functions.backend.domain.account import DAY_S, Account, Place
from functions.backend.domain.errors import KeyStoreUnavailable, QuotaExceeded
from functions.backend.domain.key import Key
from functions.backend.domain.quota import Quota
from functions.backend.domain.usage_total import UsageTotal

_KEYS = "keys"
_ACCOUNT = "account"
# A session's account is of no use after its day; DynamoDB deletes it some time after this.
_FORGET_SESSIONS_S = 2 * DAY_S
# Each try knows what the one before has found. Only others' updates in between cost another.
_TRIES = 12
_REMEMBERED = 1_000
_TOTALS = tuple(each.name for each in fields(UsageTotal))


@dataclass
class _Update:
    """An UpdateItem's expressions, put together clause by clause."""

    sets: list[str] = field(default_factory=list)
    adds: list[str] = field(default_factory=list)
    removes: list[str] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    values: Item = field(default_factory=dict)

    def name(self, name: str) -> str:
        """Give what stands for a name in an expression."""
        placeholder = f"#n{len(self.names)}"
        self.names[placeholder] = name
        return placeholder

    def value(self, value: object) -> str:
        """Give what stands for a value in an expression."""
        placeholder = f":v{len(self.values)}"
        self.values[placeholder] = value
        return placeholder

    @property
    def expression(self) -> str:
        clauses = (("SET", self.sets), ("ADD", self.adds), ("REMOVE", self.removes))
        return " ".join(f"{verb} {', '.join(parts)}" for verb, parts in clauses if parts)


class DynamoDBKeyStore:
    """A KeyStore in that table, whose keys are `pk` and `sk`, and whose items with `expires_at` go away by themselves.

    Args:
        table: its name.
        region: where it is.
        environ: the credentials, and AWS_ENDPOINT_URL where it is not AWS's own.
    """

    def __init__(self, table: str, region: str, environ: Mapping[str, str]) -> None:
        self._db = DynamoDB(table, region, environ)
        # What an account was when it was last seen here: the guess that the next update begins with.
        self._seen: dict[str, Item] = {}

    async def find(self, key_id: str) -> Key | None:
        """Give the key of that id; see the port."""
        item = await self._db.get(_KEYS, key_id)
        return _key(item) if item else None

    async def add(self, key: Key) -> bool:
        """Keep a new key; see the port."""
        item = {
            "pk": _KEYS,
            "sk": key.id,
            "name": key.name,
            "digest": key.digest,
            "scopes": " ".join(sorted(key.scopes)),
            "created": key.created,
            "tokens_per_minute": key.quota.tokens_per_minute,
            "tokens_per_day": key.quota.tokens_per_day,
            "concurrency": key.quota.concurrency,
            "expires": key.expires,
            "revoked": key.revoked,
        }
        present = {name: value for name, value in item.items() if value is not None}
        try:
            await self._db.put(present, "attribute_not_exists(pk)")
        except ConditionFailed:
            return False
        return True

    async def revoke(self, key_id: str, now: float) -> bool:
        """Let the key's holder in no more; see the port."""
        update = _Update()
        update.sets.append(f"revoked = if_not_exists(revoked, {update.value(now)})")
        update.conditions.append("attribute_exists(pk)")
        try:
            await self._change(_KEYS, key_id, update)
        except ConditionFailed:
            return False
        return True

    async def keys(self) -> Sequence[Key]:
        """Give all keys; see the port."""
        return sorted(map(_key, await self._db.query(_KEYS)), key=lambda key: (key.created, key.id))

    async def reserve(self, account: str, quota: Quota, place: Place, now: float) -> Account:
        """Take the place and its tokens; see the port."""
        seen, fresh = self._seen.get(account), False
        for _ in range(_TRIES):
            try:
                taken = _account(seen).admit(quota, place, now).places[place.name]
                after = await self._change(account, _ACCOUNT, _reservation(account, seen, quota, taken, now))
            except ConditionFailed as failed:
                seen, fresh = failed.item, True
                if seen and place.name in seen["places"]:
                    # An answer was lost on its way: what was asked again had been done.
                    return _account(seen).at(now)
            except QuotaExceeded:
                # Refused by what was seen some time ago: others may have given something back since.
                if fresh:
                    raise
                seen, fresh = await self._db.get(account, _ACCOUNT), True
            else:
                self._remember(account, after)
                return _account(after).at(now)
        raise KeyStoreUnavailable("Too many requests of the same key begin at this moment.")

    async def renew(self, account: str, name: str, until: float) -> bool:
        """Have the place last longer; see the port."""
        update = _Update()
        held = f"places.{update.name(name)}"
        update.conditions.append(f"attribute_exists({held})")
        # DynamoDB has a meaning of its own for that word.
        update.sets.append(f"{held}.{update.name('until')} = {update.value(until)}")
        try:
            self._remember(account, await self._change(account, _ACCOUNT, update))
        except ConditionFailed:
            return False
        return True

    async def settle(self, account: str, place: Place, usage: UsageTotal, now: float) -> Account:
        """Give the place back; see the port."""
        seen = self._seen.get(account)
        for _ in range(_TRIES):
            try:
                after = await self._change(account, _ACCOUNT, _settlement(seen, place, usage, now))
            except ConditionFailed as failed:
                seen = failed.item
                # A session's item may be none: DynamoDB has forgotten it.
                if seen is None or place.name not in seen["places"]:
                    return _account(seen).at(now)
            else:
                self._remember(account, after)
                return _account(after).at(now)
        raise KeyStoreUnavailable("Too many requests of the same key end at this moment.")

    async def totals(self, accounts: Sequence[str]) -> Sequence[UsageTotal]:
        """Give what each of these accounts has used; see the port."""
        items = await self._db.get_many([(account, _ACCOUNT) for account in accounts])
        return [_total(items.get((account, _ACCOUNT))) for account in accounts]

    async def aclose(self) -> None:
        """Close the connections; a later call opens new ones."""
        await self._db.aclose()

    async def _change(self, pk: str, sk: str, update: _Update) -> Item:
        condition = " AND ".join(update.conditions)
        return await self._db.update(pk, sk, update.expression, condition, update.names, update.values)

    def _remember(self, account: str, item: Item) -> None:
        if len(self._seen) >= _REMEMBERED:
            self._seen.clear()
        self._seen[account] = item


def _reservation(account: str, seen: Item | None, quota: Quota, place: Place, now: float) -> _Update:
    """Give the update that takes the place, if the account is as it was seen, but for what others have added to it."""
    update = _Update()
    if account.startswith("session:"):
        update.sets.append(f"expires_at = {update.value(int(now) + _FORGET_SESSIONS_S)}")
    if seen is None:
        update.conditions.append("attribute_not_exists(pk)")
        update.sets += [f"minute_no = {update.value(place.minute)}", f"minute_tokens = {update.value(place.tokens)}"]
        update.sets += [f"day_no = {update.value(place.day)}", f"day_tokens = {update.value(place.tokens)}"]
        update.sets.append(f"places = {update.value({place.name: _written(place)})}")
        return update
    lost = _account(seen).lost(now)
    windows = (
        ("minute", place.minute, quota.tokens_per_minute, place.tokens - lost[0]),
        ("day", place.day, quota.tokens_per_day, place.tokens - lost[1]),
    )
    for window, number, limit, added in windows:
        found = seen[f"{window}_no"]
        update.conditions.append(f"{window}_no = {update.value(found)}")
        if found < number:
            # The first of a new window; whoever else is that makes this one a second.
            update.sets += [f"{window}_no = {update.value(number)}", f"{window}_tokens = {update.value(place.tokens)}"]
        else:
            update.adds.append(f"{window}_tokens {update.value(added)}")
            if limit is not None:
                update.conditions.append(f"{window}_tokens <= {update.value(limit - added)}")
    alive = {name: held for name, held in seen["places"].items() if _place(name, held).until > now}
    if len(alive) == len(seen["places"]):
        name = update.name(place.name)
        update.conditions.append(f"attribute_not_exists(places.{name})")
        update.sets.append(f"places.{name} = {update.value(_written(place))}")
        if quota.concurrency is not None:
            update.conditions.append(f"size(places) < {update.value(quota.concurrency)}")
    else:
        # Some were given up, and their tokens with them: the others alone are kept, if they are still these.
        update.conditions.append(f"places = {update.value(seen['places'])}")
        update.sets.append(f"places = {update.value({**alive, place.name: _written(place)})}")
    return update


def _settlement(seen: Item | None, place: Place, usage: UsageTotal, now: float) -> _Update:
    """Give the update that gives the place back, if it is there and the windows are those that were seen."""
    update = _Update()
    update.conditions.append(f"attribute_exists(places.{update.name(place.name)})")
    over = usage.tokens - place.tokens
    for window, number in (("minute", place.minute), ("day", place.day)):
        # Where nothing is known yet, the place's own windows are the likeliest.
        found = seen[f"{window}_no"] if seen else number
        update.conditions.append(f"{window}_no = {update.value(found)}")
        if found == number and over:
            update.adds.append(f"{window}_tokens {update.value(over)}")
    for name in _TOTALS:
        amount = getattr(usage, name)
        if amount:
            update.adds.append(f"{name} {update.value(amount)}")
    update.sets.append(f"used = {update.value(now)}")
    update.removes.append(f"places.{update.name(place.name)}")
    return update


def _account(item: Item | None) -> Account:
    if not item:
        return Account()
    places = {name: _place(name, held) for name, held in item["places"].items()}
    return Account(item["minute_no"], item["minute_tokens"], item["day_no"], item["day_tokens"], places)


def _place(name: str, held: Item) -> Place:
    return Place(name, held["tokens"], held["minute"], held["day"], held["until"])


def _written(place: Place) -> Item:
    return {"tokens": place.tokens, "minute": place.minute, "day": place.day, "until": place.until}


def _key(item: Item) -> Key:
    quota = Quota(item.get("tokens_per_minute"), item.get("tokens_per_day"), item.get("concurrency"))
    scopes = frozenset(item["scopes"].split())
    times = item.get("expires"), item.get("revoked")
    return Key(item["sk"], item["name"], item["digest"], scopes, item["created"], quota, *times)


def _total(item: Item | None) -> UsageTotal:
    return UsageTotal(**{name: item[name] for name in _TOTALS if name in item}) if item else UsageTotal()
