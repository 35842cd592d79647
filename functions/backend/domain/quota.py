"""How much somebody may use, and how much of it is left."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Quota:
    """Tokens in a minute and in a day (of UTC), and requests at the same time; None is no limit.

    A request may make several of its texts side by side: its tokens are counted for each.

    Raises:
        ValueError: names the limit that is not a whole number above 0.
    """

    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    concurrency: int | None = None

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if value is not None and not 1 <= value <= 10**12:
                raise ValueError(f"{limit.name} is {value}; it must be a whole number from 1 to 1000000000000")


NO_LIMITS = Quota()


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One limit as it stands now: `reset_s` is when all of it is there again, None where only others can free it."""

    name: str
    limit: int
    remaining: int
    reset_s: float | None


RateLimits = tuple[RateLimit, ...]
