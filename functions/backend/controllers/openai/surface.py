"""What the endpoints that write text share."""

import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request

from functions.backend.application.generate_choices import ChoiceEvents, GenerateChoices, StreamChoices
from functions.backend.application.generate_text import Take
from functions.backend.application.llm_gateway import LLMGateway
from functions.backend.application.metering import Metering
from functions.backend.application.reservation import Reservation
from functions.backend.application.time_limit import Deadline, TimeLimit
from functions.backend.controllers.disconnect import unless_client_leaves
from functions.backend.controllers.document import event_schema, with_parts
from functions.backend.controllers.metered import admitted, estimated_tokens
from functions.backend.controllers.openai.errors import OpenAIErrorBody
from functions.backend.controllers.openai.heading import Heading
from functions.backend.controllers.principal import PrincipalOf
from functions.backend.controllers.request_id import request_id_of
from functions.backend.controllers.timeout import timeout_of
from functions.backend.domain.events import Done
from functions.backend.domain.generation import Generation
from functions.backend.domain.principal import Principal
from functions.backend.domain.prompt import PromptLimits

REFUSALS = (400, 401, 403, 404, 408, 413, 415, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class OpenAISurface:
    """The use cases behind the endpoints, and what these need to know.

    Args:
        whole: makes texts and gives them whole.
        stream: makes texts and tells of them as they are made.
        gateway: knows the models.
        limits: of a prompt.
        principal_of: knows who asks.
        metering: lets them, and counts what they use.
        max_seconds: that a request may take, whatever it asks for.
        now: seconds since 1970.
    """

    whole: GenerateChoices
    stream: StreamChoices
    gateway: LLMGateway
    limits: PromptLimits
    principal_of: PrincipalOf
    metering: Metering
    max_seconds: float = math.inf
    now: Callable[[], float] = field(default=time.time)

    def deadline(self, request: Request) -> Deadline:
        """Give the end of all that is done for a request that is here now: its own, and no later than anybody's.

        Raises:
            InvalidRequest: what it says of its time is no time.
        """
        return Deadline(timeout_of(request), self.max_seconds)

    async def texts(
        self,
        request: Request,
        principal: Principal,
        generations: Sequence[Generation],
        deadline: Deadline,
        takes: Sequence[Take],
    ) -> tuple[Done, ...]:
        """Have each text's tokens taken by its own, within the sender's quota; a client that leaves ends them.

        Raises:
            BackendError: they may not have them, or one could not be completed.
        """
        async with self._admitted(request, principal, generations) as reservation:
            asked = generations, takes, request_id_of(request.scope), principal.client, deadline
            return await unless_client_leaves(request.receive, self.whole(*asked, reservation.metered))

    @asynccontextmanager
    async def events(
        self, request: Request, principal: Principal, generations: Sequence[Generation], deadline: Deadline
    ) -> AsyncIterator[ChoiceEvents]:
        """Enter when the sender may, and the first event is there; every event is counted."""
        async with self._admitted(request, principal, generations) as reservation:
            asked = generations, request_id_of(request.scope), principal.client, deadline
            async with self.stream(*asked, reservation.metered) as events:
                yield events

    def _admitted(
        self, request: Request, principal: Principal, generations: Sequence[Generation]
    ) -> AbstractAsyncContextManager[Reservation]:
        tokens = estimated_tokens(*generations)
        return admitted(self.metering, principal, request.scope, tokens, len(generations))

    async def heading(self, kind: str, request_id: str, model: str | None, deadline: Deadline) -> Heading:
        """Give the heading of an answer; it names the default model where the request names none.

        Raises:
            LLMError: which one that is could not be learned in time.
        """
        if model is None:
            with closing(TimeLimit(deadline)) as limit, limit:
                cards = await self.gateway.models(request_id)
            model = next((card.name for card in cards if card.default), "default")
        return Heading(f"{kind}-{request_id}", int(self.now()), model)


def request_body(kind: type[BaseModel]) -> dict[str, Any]:
    """Give a request as the document tells it. Bodies are read by us, so that a fault of the JSON is named as one."""
    schema = kind.model_json_schema()
    parts = schema.pop("$defs", {})
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": with_parts(schema, parts)}}}}


def stream_answer(chunk: Any, example: str) -> dict[str, Any]:
    """Give the form that an answer has where `stream` is true."""
    said = (
        "Data-only server-sent events: chunks, then `[DONE]`; or, as the last one, an `error`. Comments come while "
        "there is nothing to tell."
    )
    events = event_schema(chunk | OpenAIErrorBody, last="[DONE]")
    return {"text/event-stream": {"itemSchema": {"description": said, **events}, "example": example}}
