"""POST /v1/chat/completions."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from functions.backend.controllers.media_types import expect_json
from functions.backend.controllers.openai.chat_answer import (
    ChatChunks,
    OpenAIChatChunk,
    OpenAIChatCompletion,
    chat_answer,
)
from functions.backend.controllers.openai.chat_request import ChatRequest, read_chat_order
from functions.backend.controllers.openai.chunk_response import ChunkResponse
from functions.backend.controllers.openai.errors import error_answers
from functions.backend.controllers.openai.surface import REFUSALS, OpenAISurface, request_body, stream_answer
from functions.backend.controllers.request_id import request_id_of

_EXAMPLE = (
    'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":0,"model":"muninn-char",'
    '"choices":[{"index":0,"delta":{"role":"assistant","content":"Nay"},"logprobs":null,"finish_reason":null}]}\n\n'
    "data: [DONE]\n\n"
)
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "model": OpenAIChatCompletion,
        "description": "The answers",
        "content": stream_answer(OpenAIChatChunk, _EXAMPLE),
    }
}


def chat_router(surface: OpenAISurface) -> APIRouter:
    """Give the route that goes on with conversations."""
    router = APIRouter(prefix="/v1", tags=["openai"])

    @router.post(
        "/chat/completions",
        summary="Go on with a conversation",
        responses={**_ANSWER, **error_answers(*REFUSALS)},
        openapi_extra=request_body(ChatRequest),
    )
    async def chat(request: Request) -> Response:
        principal = await surface.principal_of(request)
        expect_json(request.headers.get("content-type"))
        deadline = surface.deadline(request)
        asked = ChatRequest.read(await request.body())
        order = read_chat_order(asked, surface.max_prompt_length)
        heading = await surface.heading("chatcmpl", request_id_of(request.scope), asked.model, deadline)
        if asked.stream:
            chunks = ChatChunks(
                heading, with_logprobs=order.wants_logprobs, with_usage=asked.includes_usage, names=order.callable
            )
            return ChunkResponse(surface.events(request, principal, order.generations, deadline), chunks)
        completions = await surface.texts(request, principal, order.generations, deadline)
        answer = chat_answer(heading, completions, with_logprobs=order.wants_logprobs, names=order.callable)
        return JSONResponse(answer, headers={"cache-control": "no-store"})

    return router
