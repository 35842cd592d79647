"""The same generation, for those who want the whole text."""

import asyncio
import math
from collections.abc import Callable
from contextlib import aclosing, closing

from functions.backend.application.llm_gateway import LLMGateway
from functions.backend.application.meter import Meter, unmetered
from functions.backend.application.time_limit import TimeLimit, shorter
from functions.backend.domain.errors import LLMDisconnected
from functions.backend.domain.events import Done, StreamError, Token, failure_of
from functions.backend.domain.generation import Generation

# What a token with twenty alternatives takes to read and to keep is some 100 microseconds, and a long prompt's echo
# comes faster than that: after so many the others have their turn.
_AT_ONCE = 16

Take = Callable[[Token], None]
"""Keeps what is wanted of a token."""


class GenerateText:
    """Gathers a stream; half a text is a failure here."""

    def __init__(self, gateway: LLMGateway, max_seconds: float = math.inf) -> None:
        self._gateway = gateway
        self._max_seconds = max_seconds

    async def __call__(
        self,
        generation: Generation,
        take: Take,
        request_id: str,
        client: str = "",
        timeout_s: float | None = None,
        meter: Meter = unmetered,
    ) -> Done:
        """Have all tokens taken, as they come, and give the end; a caller that is cancelled ends the work.

        All of it is done within `timeout_s`, and holds nobody else up, however fast the tokens come.

        Raises:
            LLMError: the text could not be completed.
        """
        taken = 0
        timeout_s = shorter(timeout_s, self._max_seconds)
        with closing(TimeLimit(timeout_s)) as limit, limit:
            told = self._gateway.stream(generation, request_id, client, timeout_s)
            async with aclosing(meter(generation, told)) as events:
                async for event in events:
                    match event:
                        case Token():
                            take(event)
                            taken += 1
                            if not taken % _AT_ONCE:
                                await asyncio.sleep(0)
                        case Done():
                            return event
                        case StreamError():
                            raise failure_of(event)
        raise LLMDisconnected
