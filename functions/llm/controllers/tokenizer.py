"""POST /tokenize, POST /detokenize and GET /tokenizer_info."""

import asyncio
import json
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from functions.llm.controllers.envelope import timeout_of
from functions.llm.controllers.loaded_model import loaded_model
from functions.llm.controllers.request_body import read_json_body
from functions.llm.controllers.wire import (
    ConversationBody,
    DetokenizeAnswer,
    DetokenizeBody,
    ErrorAnswer,
    TokenizeAnswer,
    TokenizeBody,
    TokenizerAnswer,
)
from functions.llm.inference.errors import InvalidOptionError
from functions.llm.inference.generation import encoded_prompt
from functions.llm.inference.model_store import ModelStore
from functions.llm.inference.served_model import ServedModel
from functions.llm.tokenizers import TokenizerError

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": description}
    for status, description in {
        400: "The body is no JSON: `invalid_json`.",
        404: "There is no such model: `model_not_found`.",
        408: "The body is not here after 30 s: `request_timeout`.",
        413: "The body is larger than 1 MB: `body_too_large`.",
        415: "The body is not said to be JSON: `unsupported_media_type`.",
        422: "A field is out of range: `invalid_request`, `invalid_prompt`.",
        503: "The model is being loaded: `not_ready`.",
    }.items()
}


_MODEL = {
    "name": "model",
    "in": "query",
    "required": False,
    "schema": {"type": "string"},
    "description": "One of GET /models; without it, the default.",
}


def tokenizer_router(store: ModelStore, max_prompt_tokens: int, max_seconds: float) -> APIRouter:
    """Return the routes that tell of tokens.

    Args:
        store: the models.
        max_prompt_tokens: how long a prompt may be.
        max_seconds: how long a request may wait for its model.
    """
    router = APIRouter(tags=["tokens"])

    @router.post("/tokenize", response_model=TokenizeAnswer, responses=_REFUSALS, openapi_extra=TokenizeBody.openapi())
    async def tokenize(request: Request) -> Response:
        """Cut a text into tokens; none is added to it."""
        timeout_s = timeout_of(request, max_seconds)
        body = TokenizeBody.from_json(await read_json_body(request))
        model = await loaded_model(store, body.model, timeout_s)
        # Beside the event loop, on which everybody's streams are: a long text has many tokens.
        return await asyncio.to_thread(_tokens_of, model, body)

    @router.post(
        "/detokenize", response_model=DetokenizeAnswer, responses=_REFUSALS, openapi_extra=DetokenizeBody.openapi()
    )
    async def detokenize(request: Request) -> Response:
        """Put tokens together; bytes that no character has come out as U+FFFD."""
        timeout_s = timeout_of(request, max_seconds)
        body = DetokenizeBody.from_json(await read_json_body(request))
        model = await loaded_model(store, body.model, timeout_s)
        try:
            text = await asyncio.to_thread(model.tokenizer.decode, body.tokens)
        except TokenizerError as error:
            raise InvalidOptionError("tokens", f"cannot be put together: {error}.") from error
        return _answer(DetokenizeAnswer(model=model.name, text=text))

    @router.get(
        "/tokenizer_info",
        responses={status: _REFUSALS[status] for status in (404, 503)},
        openapi_extra={"parameters": [_MODEL]},
    )
    async def tokenizer_info(request: Request) -> TokenizerAnswer:
        """Tell what there is to know of a model's tokenizer."""
        served = await loaded_model(store, request.query_params.get("model"), timeout_of(request, max_seconds))
        template = served.chat_template
        return TokenizerAnswer(
            model=served.name,
            kind=served.tokenizer.kind,
            vocab_size=served.tokenizer.vocab_size,
            max_prompt_tokens=max_prompt_tokens,
            bos_token=template.bos_token or None,
            eos_token=template.eos_token or None,
            special_tokens=dict(served.tokenizer.special_tokens),
            chat_template=template.source,
        )

    return router


def _tokens_of(model: ServedModel, body: TokenizeBody) -> Response:
    ids: tuple[int, ...] = ()
    if body.prompt:
        prompt = body.prompt.to_conversation() if isinstance(body.prompt, ConversationBody) else body.prompt
        ids = encoded_prompt(model, prompt)
    pieces = [model.tokenizer.token_bytes(token_id).hex() for token_id in ids]
    return _answer(TokenizeAnswer(model=model.name, tokens=list(ids), pieces=pieces))


def _answer(answer: BaseModel) -> Response:
    return Response(json.dumps(answer.model_dump(), ensure_ascii=False), media_type="application/json")
