"""POST /v1/completions."""

from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from functions.backend.controllers.body import read_body
from functions.backend.controllers.media_types import expect_json
from functions.backend.controllers.openai.chunk_response import ChunkResponse
from functions.backend.controllers.openai.completion_answer import (
    CompletionChunks,
    CompletionText,
    OpenAICompletion,
    OpenAICompletionChunk,
    completion_answer,
)
from functions.backend.controllers.openai.completion_request import CompletionOrder, CompletionsRequest, read_order
from functions.backend.controllers.openai.errors import error_answers
from functions.backend.controllers.openai.model_root import model_root_of
from functions.backend.controllers.openai.surface import REFUSALS, OpenAISurface, request_body, stream_answer
from functions.backend.controllers.request_id import request_id_of
from functions.backend.controllers.whole_answer import MAX_SCORES, WholeAnswer, expect_fitting

_EXAMPLE = (
    'data: {"id":"cmpl-1","object":"text_completion","created":0,"model":"muninn-char",'
    '"choices":[{"text":"Nay","index":0,"logprobs":null,"finish_reason":null}]}\n\ndata: [DONE]\n\n'
)
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "model": OpenAICompletion,
        "description": f"The texts; whole, they have at most {MAX_SCORES} log-probabilities",
        "content": stream_answer(OpenAICompletionChunk, _EXAMPLE),
    }
}


def completions_router(surface: OpenAISurface) -> APIRouter:
    """Give the route that goes on from prompts."""
    router = APIRouter(prefix="/v1", tags=["openai"])

    def read(body: bytes, root: str | None) -> tuple[CompletionsRequest, CompletionOrder]:
        asked = CompletionsRequest.read(body, root)
        return asked, read_order(asked, surface.limits)

    @router.post(
        "/completions",
        summary="Go on from a prompt or several",
        responses={**_ANSWER, **error_answers(*REFUSALS)},
        openapi_extra=request_body(CompletionsRequest),
    )
    async def completions(request: Request) -> Response:
        principal = await surface.principal_of(request)
        expect_json(request.headers.get("content-type"))
        deadline, request_id = surface.deadline(request), request_id_of(request.scope)
        asked, order = await read_body(request, partial(read, root=model_root_of(request.scope)))
        if order.wants_logprobs and not asked.stream:
            expect_fitting(order.generations, "Set stream to true")
        shows_new = not order.drops_the_last
        heading = await surface.heading("cmpl", request_id, asked.model, deadline)
        if asked.stream:
            chunks = CompletionChunks(
                heading,
                with_logprobs=order.wants_logprobs,
                with_usage=asked.includes_usage,
                made=order.made,
                shows_new=shows_new,
            )
            return ChunkResponse(surface.events(request, principal, order.generations, deadline), chunks)
        ranked = order.made > order.given
        texts = [
            CompletionText(with_logprobs=order.wants_logprobs, shows_new=shows_new, ranked=ranked)
            for _ in order.generations
        ]
        ends = await surface.texts(request, principal, order.generations, deadline, [text.take for text in texts])
        answer = completion_answer(heading, texts, ends, made=order.made, given=order.given, shows_new=shows_new)
        return WholeAnswer(tuple(answer), {"cache-control": "no-store"})

    return router
