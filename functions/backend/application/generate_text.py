"""The same generation, for those who want the whole text."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing, closing

from functions.backend.application.llm_gateway import LLMGateway
from functions.backend.application.meter import Meter, unmetered
from functions.backend.application.time_limit import Deadline, TimeLimit
from functions.backend.domain.errors import LLMDisconnected, LLMError
from functions.backend.domain.events import Done, StreamError, Token, failure_of
from functions.backend.domain.generation import Generation

# What a token with twenty alternatives takes to read and to keep is some 100 microseconds, and a long prompt's echo
# comes faster than that: after so many the others have their turn.
_AT_ONCE = 16

Take = Callable[[Token], None]
"""Keeps what is wanted of a token."""


class GenerateText:
    """Gathers a stream; half a text is a failure here."""

    def __init__(self, gateway: LLMGateway) -> None:
        self._gateway = gateway

    async def __call__(
        self,
        generation: Generation,
        take: Take,
        request_id: str,
        client: str = "",
        deadline: Deadline | None = None,
        meter: Meter = unmetered,
    ) -> Done:
        """Have all tokens taken, as they come, and give the end; a caller that is cancelled ends the work.

        All of it is done before the deadline, and holds nobody else up, however fast the tokens come.

        Raises:
            LLMError: the text could not be completed.
        """
        deadline = deadline or Deadline()
        try:
            return await self._gather(generation, take, request_id, client, deadline, meter)
        except LLMError as error:
            raise deadline.judge(error) from error.__cause__

    async def _gather(
        self, generation: Generation, take: Take, request_id: str, client: str, deadline: Deadline, meter: Meter
    ) -> Done:
        taken = 0
        with closing(TimeLimit(deadline)) as limit, limit:
            told = self._gateway.stream(generation, request_id, client, deadline.left())
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
