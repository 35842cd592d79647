"""A request's generation, begun as its sender's quota allows, and counted."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Scope

from functions.backend.application.metering import Metering
from functions.backend.application.reservation import Reservation
from functions.backend.controllers.rate_limits import remember_limits
from functions.backend.controllers.request_id import request_id_of
from functions.backend.domain.errors import QuotaExceeded
from functions.backend.domain.generation import Generation
from functions.backend.domain.principal import GENERATE, Principal
from functions.backend.domain.usage_total import UsageTotal
from functions.backend.telemetry.current import note


def estimated_tokens(*generations: Generation) -> int:
    """Give how many tokens generations may need."""
    return sum(generation.prompt.most_tokens + generation.options.max_tokens for generation in generations)


@asynccontextmanager
async def admitted(
    metering: Metering,
    principal: Principal,
    scope: Scope,
    tokens: int,
    generations: int = 1,
) -> AsyncIterator[Reservation]:
    """Enter when the sender may use so many tokens, for so many generations, now; the answer tells what is left.

    Raises:
        Forbidden, QuotaExceeded, KeyStoreUnavailable: they may not, or nobody can say.
    """
    principal.require(GENERATE)
    try:
        async with metering.admit(principal, request_id_of(scope), tokens, generations) as reservation:
            remember_limits(scope, reservation.limits)
            try:
                yield reservation
            finally:
                _tell(principal, reservation.usage())
                # A whole answer is not begun yet: it tells what is left when the rest was given back.
                await reservation.finish()
                remember_limits(scope, reservation.limits)
    except QuotaExceeded as error:
        remember_limits(scope, error.limits)
        raise


def _tell(principal: Principal, usage: UsageTotal) -> None:
    """Have the log tell what the request has cost, and, where a key pays for it, by its id which."""
    if principal.kind == "anonymous":
        return
    paid_by = {"key_id": principal.id} if principal.kind == "key" else {}
    note(
        **paid_by,
        cached_prompt_tokens=usage.cached_prompt_tokens,
        cpu_seconds=round(usage.cpu_seconds, 6),
        gb_seconds=round(usage.gb_seconds, 6),
        cost_usd=round(usage.cost_usd, 12),
    )
