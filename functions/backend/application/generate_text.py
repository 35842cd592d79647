"""The same generation, given whole."""

import math
from contextlib import aclosing, closing
from dataclasses import dataclass

from functions.backend.application.llm_gateway import LLMGateway
from functions.backend.application.meter import Meter, unmetered
from functions.backend.application.time_limit import TimeLimit, shorter
from functions.backend.domain.errors import LLMDisconnected
from functions.backend.domain.events import Done, StreamError, Token, failure_of
from functions.backend.domain.generation import Generation


@dataclass(frozen=True, slots=True)
class Completion:
    """A complete text: its tokens and how it ended."""

    tokens: tuple[Token, ...]
    done: Done

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)

    @property
    def generated(self) -> tuple[Token, ...]:
        """The tokens that the model chose; those before them are the prompt's, echoed."""
        return tuple(token for token in self.tokens if token.position >= self.done.usage.prompt_tokens)

    @property
    def mean_logprob(self) -> float:
        """How likely the model finds what it chose, per token; needs tokens with log-probabilities."""
        scores = [
            token.logprobs.token for token in self.generated if token.logprobs and token.logprobs.token is not None
        ]
        return sum(scores) / len(scores) if scores else 0.0


class GenerateText:
    """Gathers a stream; half a text is a failure here."""

    def __init__(self, gateway: LLMGateway, max_seconds: float = math.inf) -> None:
        self._gateway = gateway
        self._max_seconds = max_seconds

    async def __call__(
        self,
        generation: Generation,
        request_id: str,
        client: str = "",
        timeout_s: float | None = None,
        meter: Meter = unmetered,
    ) -> Completion:
        """Give the whole text, within `timeout_s`; a caller that is cancelled ends the work.

        Raises:
            LLMError: the text could not be completed.
        """
        tokens: list[Token] = []
        timeout_s = shorter(timeout_s, self._max_seconds)
        with closing(TimeLimit(timeout_s)) as limit, limit:
            told = self._gateway.stream(generation, request_id, client, timeout_s)
            async with aclosing(meter(generation, told)) as events:
                async for event in events:
                    match event:
                        case Token():
                            tokens.append(event)
                        case Done():
                            return Completion(tuple(tokens), event)
                        case StreamError():
                            raise failure_of(event)
        raise LLMDisconnected
