"""POST /v1/chat/completions."""

from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from functions.backend.controllers.body import read_body
from functions.backend.controllers.media_types import expect_json
from functions.backend.controllers.openai.chat_answer import (
    ChatChunks,
    ChatText,
    OpenAIChatChunk,
    OpenAIChatCompletion,
    chat_answer,
)
from functions.backend.controllers.openai.chat_request import ChatOrder, ChatRequest, read_chat_order
from functions.backend.controllers.openai.chunk_response import ChunkResponse
from functions.backend.controllers.openai.errors import chat_shape, error_answers
from functions.backend.controllers.openai.model_root import model_root_of
from functions.backend.controllers.openai.surface import REFUSALS, OpenAISurface, request_body, stream_answer
from functions.backend.controllers.request_id import request_id_of
from functions.backend.controllers.whole_answer import MAX_SCORES, WholeAnswer, expect_fitting

_EXAMPLE = (
    'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":0,"model":"muninn-char",'
    '"choices":[{"index":0,"delta":{"role":"assistant","content":"Nay"},"logprobs":null,"finish_reason":null}]}\n\n'
    "data: [DONE]\n\n"
)
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "model": OpenAIChatCompletion,
        "description": f"The answers; whole, they have at most {MAX_SCORES} log-probabilities",
        "content": stream_answer(OpenAIChatChunk, _EXAMPLE),
    }
}


def chat_router(surface: OpenAISurface) -> APIRouter:
    """Give the route that goes on with conversations."""
    router = APIRouter(prefix="/v1", tags=["openai"])

    def read(body: bytes, root: str | None) -> tuple[ChatRequest, ChatOrder]:
        asked = ChatRequest.read(body, root)
        return asked, read_chat_order(asked, surface.limits)

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
        asked, order = await read_body(request, partial(read, root=model_root_of(request.scope)))
        if order.wants_logprobs and not asked.stream:
            expect_fitting(order.generations, "Set stream to true")
        heading = await surface.heading("chatcmpl", request_id_of(request.scope), asked.model, deadline)
        if asked.stream:
            chunks = ChatChunks(
                heading, with_logprobs=order.wants_logprobs, with_usage=asked.includes_usage, names=order.callable
            )
            return ChunkResponse(surface.events(request, principal, order.generations, deadline), chunks, chat_shape)
        texts = [ChatText(with_logprobs=order.wants_logprobs) for _ in order.generations]
        ends = await surface.texts(request, principal, order.generations, deadline, [text.take for text in texts])
        answer = chat_answer(heading, texts, ends, order.callable)
        return WholeAnswer(tuple(answer), {"cache-control": "no-store"})

    return router
