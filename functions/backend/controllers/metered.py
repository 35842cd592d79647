"""A request's generation, begun as its sender's quota allows, and counted."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager

from starlette.types import Scope

from functions.backend.application.metering import Metering, Reservation
from functions.backend.controllers.rate_limits import remember_limits
from functions.backend.controllers.request_id import request_id_of
from functions.backend.domain.errors import QuotaExceeded
from functions.backend.domain.events import Event
from functions.backend.domain.generation import Generation
from functions.backend.domain.principal import GENERATE, Principal
from functions.backend.domain.usage_total import UsageTotal
from functions.backend.telemetry.current import note


def estimated_tokens(generation: Generation) -> int:
    """Give how many tokens a generation may need: no token is shorter than a character, but for a few."""
    return generation.prompt.length + generation.options.max_tokens


@asynccontextmanager
async def admitted(metering: Metering, principal: Principal, scope: Scope, tokens: int) -> AsyncIterator[Reservation]:
    """Enter when the sender may generate so many tokens now; the answer tells what is left.

    Raises:
        Forbidden, QuotaExceeded, KeyStoreUnavailable: they may not, or nobody can say.
    """
    principal.require(GENERATE)
    try:
        async with metering.admit(principal, request_id_of(scope), tokens) as reservation:
            remember_limits(scope, reservation.limits)
            try:
                yield reservation
            finally:
                _tell(principal, reservation.usage())
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


@asynccontextmanager
async def metered_events(
    metering: Metering,
    principal: Principal,
    scope: Scope,
    generation: Generation,
    events: AbstractAsyncContextManager[AsyncIterator[Event]],
) -> AsyncIterator[AsyncIterator[Event]]:
    """Enter when the sender may, and the first event is there; every event is counted."""
    async with admitted(metering, principal, scope, estimated_tokens(generation)) as reservation, events as source:
        if principal.kind == "anonymous":
            yield source  # whom nobody counts
            return
        async with aclosing(reservation.noting(source)) as noted:
            yield noted
