"""An answer ends when the key that it was asked for with is good no more."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from functions.backend.domain.errors import KeyStoreUnavailable, Unauthenticated
from functions.backend.domain.principal import Principal

GoodFor = Callable[[str], Awaitable[float]]
"""Gives for how many seconds the key of that id is good for sure, or raises Unauthenticated or KeyStoreUnavailable."""

# Where nobody could say.
_AGAIN_S = 5.0
# A timer may be a little ahead of the clock.
_SHORTEST_S = 0.01


@asynccontextmanager
async def while_good(principal: Principal, good_for: GoodFor) -> AsyncIterator[None]:
    """Have the block go on for as long as the principal's key is good; whatever it waits for then is cancelled.

    Raises:
        Unauthenticated: on leaving; the key has expired, or was revoked a few seconds ago.
    """
    if principal.kind != "key":
        yield
        return
    running = asyncio.current_task()
    assert running is not None
    cancels = running.cancelling()
    refusal: Unauthenticated | None = None

    async def watch() -> None:
        nonlocal refusal
        refusal = await _refusal(principal.id, good_for)
        running.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        # As asyncio.timeout does: who was also cancelled by somebody else stays cancelled.
        if refusal is not None and running.uncancel() <= cancels:
            raise refusal from None
        raise
    finally:
        watching.cancel()


async def _refusal(key_id: str, good_for: GoodFor) -> Unauthenticated:
    """Give why the key is not good, when it is not."""
    while True:
        try:
            seconds = await good_for(key_id)
        except KeyStoreUnavailable:
            seconds = _AGAIN_S
        except Unauthenticated as error:
            return error
        await asyncio.sleep(max(seconds, _SHORTEST_S))
