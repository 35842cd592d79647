"""POST /api/llm/stream and POST /api/llm/generate."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from functions.backend.application.generate_stream import GenerateStream
from functions.backend.application.generate_text import GenerateText
from functions.backend.application.metering import Metering
from functions.backend.application.time_limit import Deadline
from functions.backend.controllers.body import read_body
from functions.backend.controllers.disconnect import unless_client_leaves
from functions.backend.controllers.document import event_schema
from functions.backend.controllers.errors import error_answers
from functions.backend.controllers.event_response import EVENT_STREAM, PLAIN, EventResponse
from functions.backend.controllers.media_types import expect_json, negotiate
from functions.backend.controllers.metered import admitted, estimated_tokens
from functions.backend.controllers.principal import PrincipalOf
from functions.backend.controllers.request_id import request_id_of
from functions.backend.controllers.timeout import timeout_of
from functions.backend.controllers.whole_answer import MAX_SCORES, WholeAnswer, expect_fitting
from functions.backend.controllers.wire import (
    CompletionBody,
    DoneBody,
    GenerationRequest,
    StreamErrorBody,
    TokenBody,
    WholeText,
    read_generation,
    write_event,
)
from functions.backend.domain.events import Done, Event, StreamError, Token, Usage
from functions.backend.domain.generation import Generation
from functions.backend.domain.principal import Principal
from functions.backend.domain.prompt import PromptLimits

_REFUSALS = (400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 502, 503, 504)
# The body is read and checked by us, so that a fault of the JSON is not taken for one of its content.
_REQUEST_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": GenerationRequest.model_json_schema()}},
    }
}
_EXAMPLE = b"".join(
    write_event(event) for event in (Token(6, 1, "Nay"), Done("length", Usage(6, 1, 7), seed=42, model="muninn-char"))
).decode()
_STREAM_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The text as it is made. A text/plain answer that ends early is cut off in the middle of its "
        "chunked encoding; text/event-stream ends with a `done` or an `error` event.",
        "content": {
            PLAIN: {"schema": {"type": "string"}, "example": "Nay"},
            EVENT_STREAM: {
                "itemSchema": {
                    "description": "`token` events, then one `done`, or one `error` "
                    f"such as {write_event(StreamError('internal', 'what happened', retryable=True)).decode()!r}",
                    **event_schema(TokenBody | DoneBody | StreamErrorBody),
                },
                "example": _EXAMPLE,
            },
        },
    }
}


def generate_router(
    generate_stream: GenerateStream,
    generate_text: GenerateText,
    limits: PromptLimits,
    principal_of: PrincipalOf,
    metering: Metering,
    max_seconds: float,
) -> APIRouter:
    """Give the routes that generate, for those who may, within so many seconds whatever they ask for."""
    router = APIRouter(prefix="/api/llm", tags=["generate"])

    @router.post(
        "/stream",
        summary="Go on from a prompt, token by token",
        status_code=200,
        response_class=EventResponse,
        responses={**_STREAM_ANSWER, **error_answers(406, *_REFUSALS)},
        openapi_extra=_REQUEST_BODY,
    )
    async def stream(request: Request) -> Response:
        principal = await principal_of(request)
        form = negotiate(request.headers.get("accept"), (PLAIN, EVENT_STREAM))
        deadline = Deadline(timeout_of(request), max_seconds)
        generation = await _read(request, limits)
        return EventResponse(_events(request, principal, generation, deadline), form)

    @router.post(
        "/generate",
        summary="Go on from a prompt, and give the whole text at the end",
        responses={
            200: {
                "model": CompletionBody,
                "description": f"The whole text, with at most {MAX_SCORES} log-probabilities",
            },
            **error_answers(*_REFUSALS),
        },
        openapi_extra=_REQUEST_BODY,
    )
    async def generate(request: Request) -> Response:
        principal = await principal_of(request)
        deadline = Deadline(timeout_of(request), max_seconds)
        generation = await _read(request, limits)
        expect_fitting([generation], "Ask POST /api/llm/stream")
        text = WholeText(with_tokens=generation.options.logprobs is not None)
        async with admitted(metering, principal, request.scope, estimated_tokens(generation)) as reservation:
            asked = generation, text.take, request_id_of(request.scope), principal.client, deadline
            done = await unless_client_leaves(request.receive, generate_text(*asked, reservation.metered))
        return WholeAnswer(tuple(text.answer(done)))

    @asynccontextmanager
    async def _events(
        request: Request, principal: Principal, generation: Generation, deadline: Deadline
    ) -> AsyncIterator[AsyncIterator[Event]]:
        async with admitted(metering, principal, request.scope, estimated_tokens(generation)) as reservation:
            asked = generation, request_id_of(request.scope), principal.client, deadline
            async with generate_stream(*asked, reservation.metered) as events:
                yield events

    return router


async def _read(request: Request, limits: PromptLimits) -> Generation:
    expect_json(request.headers.get("content-type"))
    return await read_body(request, partial(read_generation, limits=limits))
