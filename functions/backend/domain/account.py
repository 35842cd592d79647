"""What somebody has used in this minute and this day, and which requests of theirs are running.

Windows are those of the clock, in UTC: a minute's tokens are all there again when the next minute begins. A request
takes what it may need when it begins, for all of its texts, and what it did not need is given back at its end, where
that is in the same window. Its place is given up by itself after a while, with what it has taken, for the process that
holds it may have died; who lives renews it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from functions.backend.domain.errors import QuotaExceeded
from functions.backend.domain.quota import Quota, RateLimit, RateLimits

MINUTE_S = 60
DAY_S = 86_400
# A place lasts so long, and is renewed so often: a store may be away for a minute.
PLACE_S = 90.0
RENEW_EVERY_S = 30.0
# Whose renewal is later than this has most likely died.
_LATE_S = 15.0
# When places are all taken, one of them is likely free in a moment.
_RETRY_PLACE_S = 1.0
# Whatever was asked for: a text that is cut into tokens has no answer, and a prompt alone may be too long.
_LESS = "Send a shorter text or, where tokens are written to it, ask for fewer of them with max_tokens."


@dataclass(frozen=True, slots=True)
class Place:
    """What one request has taken: its tokens, of these windows, and a place up to `until` (seconds since 1970)."""

    name: str
    tokens: int
    minute: int
    day: int
    until: float

    @classmethod
    def at(cls, now: float, name: str, tokens: int, lasts_s: float = PLACE_S) -> "Place":
        """Give the place of a request that begins now, and is renewed or at its end when `lasts_s` are over."""
        return cls(name, tokens, int(now // MINUTE_S), int(now // DAY_S), now + lasts_s)

    def free_in_s(self, now: float) -> float:
        """Give the seconds after which to ask for it: its request may end at any moment, unless that has died."""
        left_s = self.until - now
        return left_s if left_s < PLACE_S - RENEW_EVERY_S - _LATE_S else _RETRY_PLACE_S


@dataclass(frozen=True, slots=True)
class Account:
    """The tokens of a minute and of a day, each counted since 1970, and the running requests by their names."""

    minute: int = 0
    minute_tokens: int = 0
    day: int = 0
    day_tokens: int = 0
    places: Mapping[str, Place] = field(default_factory=lambda: MappingProxyType({}))

    def at(self, now: float) -> "Account":
        """Give the account as it is now: of this minute and this day, without places that were given up.

        What those have taken is there again: whoever held them has died, and nobody knows what was used.

        A clock that is behind another's does not bring a window back: that would be a new one, and empty.
        """
        minute, day = max(self.minute, int(now // MINUTE_S)), max(self.day, int(now // DAY_S))
        lost = self.lost(now)
        return Account(
            minute,
            max(0, self.minute_tokens - lost[0]) if minute == self.minute else 0,
            day,
            max(0, self.day_tokens - lost[1]) if day == self.day else 0,
            {name: place for name, place in self.places.items() if place.until > now},
        )

    def lost(self, now: float) -> tuple[int, int]:
        """Give the tokens that places which were given up have taken of the account's own minute, and of its day."""
        gone = [place for place in self.places.values() if place.until <= now]
        return (
            sum(place.tokens for place in gone if place.minute == self.minute),
            sum(place.tokens for place in gone if place.day == self.day),
        )

    def admit(self, quota: Quota, place: Place, now: float) -> "Account":
        """Give the account with that request in it; its place there is of the windows that its tokens went into.

        Raises:
            QuotaExceeded: says which limit, and when to come back.
        """
        account = self.at(now)
        refusals = list(account._refusals(quota, place.tokens, now))
        if refusals:
            messages, waits = zip(*refusals, strict=True)
            wait = None if None in waits else max(waits)
            advice = _LESS if wait is None else f"Try again in {math.ceil(wait)} s."
            raise QuotaExceeded(f"{messages[0]} {advice}", retry_after_s=wait, limits=account.limits(quota, now))
        # Later ones than its own where its host's clock is behind that of another, who was here before.
        taken = replace(place, minute=account.minute, day=account.day)
        return replace(
            account,
            minute_tokens=account.minute_tokens + place.tokens,
            day_tokens=account.day_tokens + place.tokens,
            places={**account.places, place.name: taken},
        )

    def settle(self, place: Place, used_tokens: int) -> "Account":
        """Give the account without that request, whose place was this in it, and which has used so many tokens.

        Where the place is not there, nothing changes: it was settled before, or given up, and has its tokens back.
        """
        if place.name not in self.places:
            return self
        over = used_tokens - place.tokens
        return replace(
            self,
            minute_tokens=max(0, self.minute_tokens + over) if self.minute == place.minute else self.minute_tokens,
            day_tokens=max(0, self.day_tokens + over) if self.day == place.day else self.day_tokens,
            places={name: held for name, held in self.places.items() if name != place.name},
        )

    def limits(self, quota: Quota, now: float) -> RateLimits:
        """Give every limit of the quota as it stands in this account, which must be that of now."""
        found = []
        for name, limit, used, period in self._windows(quota):
            if limit is not None:
                found.append(RateLimit(name, limit, max(0, limit - used), _left(now, period) if used else 0.0))
        if quota.concurrency is not None:
            running = len(self.places)
            remaining = max(0, quota.concurrency - running)
            found.append(RateLimit("concurrency", quota.concurrency, remaining, None if running else 0.0))
        return tuple(found)

    def _windows(self, quota: Quota) -> tuple[tuple[str, int | None, int, int], ...]:
        return (
            ("tokens", quota.tokens_per_minute, self.minute_tokens, MINUTE_S),
            ("tokens-day", quota.tokens_per_day, self.day_tokens, DAY_S),
        )

    def _refusals(self, quota: Quota, tokens: int, now: float) -> "list[tuple[str, float | None]]":
        """Give what speaks against so many tokens more, each with the seconds for which it does; None is for ever."""
        found: list[tuple[str, float | None]] = []
        for _, limit, used, period in self._windows(quota):
            if limit is not None and used + tokens > limit:
                window = "minute" if period == MINUTE_S else "day"
                message = (
                    f"The request may take {tokens} tokens; of the {limit} of this {window} {max(0, limit - used)} "
                    "are left."
                )
                found.append((message, None if tokens > limit else _left(now, period)))
        if quota.concurrency is not None and len(self.places) >= quota.concurrency:
            message = f"{len(self.places)} requests are running, and {quota.concurrency} may at the same time."
            found.append((message, min(place.free_in_s(now) for place in self.places.values())))
        return found


def _left(now: float, period: int) -> float:
    """Give the seconds that are left of the window that `now` is in."""
    return period - now % period
