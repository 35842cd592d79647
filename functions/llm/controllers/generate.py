"""POST /generate and POST /generate/stream."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from functions.llm.controllers.accept import accepted_form
from functions.llm.controllers.envelope import client_of, timeout_of
from functions.llm.controllers.errors import error_code
from functions.llm.controllers.loaded_model import loaded_model
from functions.llm.controllers.request_body import read_json_body
from functions.llm.controllers.stream_response import StreamResponse, cancelled_on_disconnect
from functions.llm.controllers.traced_stream import TracedStream
from functions.llm.controllers.whole_answer import answer_json
from functions.llm.controllers.wire import CheckAnswer, CheckBody, ErrorAnswer, GenerateAnswer, GenerateBody
from functions.llm.inference.engine import Engine
from functions.llm.inference.errors import PromptTooLongError
from functions.llm.inference.generation import Done, Generation, encoded_prompt
from functions.llm.inference.generation_stream import PATIENCE_S, GenerationStream
from functions.llm.inference.model_store import ModelStore
from functions.llm.inference.served_model import ServedModel
from functions.llm.metrics import Metrics

_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "The body is no JSON: `invalid_json`."},
    404: {"model": ErrorAnswer, "description": "There is no such model: `model_not_found`."},
    408: {"model": ErrorAnswer, "description": "The body is not here after 30 s: `request_timeout`."},
    413: {"model": ErrorAnswer, "description": "Too long: `body_too_large` (1 MB), `prompt_too_long` (tokens)."},
    415: {"model": ErrorAnswer, "description": "The body is not said to be JSON: `unsupported_media_type`."},
    422: {"model": ErrorAnswer, "description": "A field is out of range: `invalid_request`, `invalid_prompt`."},
    500: {"model": ErrorAnswer, "description": "The generation failed: `internal`."},
    503: {"model": ErrorAnswer, "description": "`queue_full` or `not_ready`; Retry-After says when to try again."},
    504: {"model": ErrorAnswer, "description": "The request's time is up: `deadline_exceeded`."},
}
_BODY = GenerateBody.openapi()
_STREAM_ANSWER = {
    "description": "The text as it is made, in the form that Accept prefers.",
    "content": {
        "text/plain": {"schema": {"type": "string", "description": "The text alone; a failure closes the connection."}},
        "text/event-stream": {
            "schema": {
                "type": "string",
                "description": "Events: `token` (as in `tokens` of POST /generate), `done` (finish_reason, usage, "
                "seed, model), `error` (code, message, retryable). One of the last two ends every stream.",
            },
            "example": 'event: token\ndata: {"i":6,"id":1,"text":" My"}\n\n'
            'event: done\ndata: {"finish_reason":"length","usage":{"prompt_tokens":6,"completion_tokens":1,'
            '"total_tokens":7,"cached_prompt_tokens":0,"cpu_seconds":0.0042},"seed":42,"model":"muninn-char"}\n\n',
        },
    },
}


def generate_router(
    store: ModelStore,
    engine: Engine,
    metrics: Metrics,
    draw_seed: Callable[[], int],
    max_seconds: float,
    max_prompt_tokens: int,
    patience_s: float = PATIENCE_S,
) -> APIRouter:
    """Return the routes that generate.

    Args:
        store: the models.
        engine: who answers.
        metrics: hear of refusals.
        draw_seed: serves requests without a seed.
        max_seconds: how long a request may take at most, waiting included.
        max_prompt_tokens: how long a prompt may be.
        patience_s: how long a client may leave its tokens unread.
    """
    router = APIRouter(tags=["generate"])

    async def begin(request: Request) -> TracedStream:
        client, timeout_s, began = client_of(request), timeout_of(request, max_seconds), time.monotonic()
        body = GenerateBody.from_json(await read_json_body(request))
        # Loading takes seconds, and a long prompt takes tokenizing: neither may hold up the others' streams.
        model = await loaded_model(store, body.model, timeout_s - (time.monotonic() - began))
        generation = await asyncio.to_thread(Generation, model, body.to_request(draw_seed()))
        _expect_short(generation.prompt, max_prompt_tokens)
        # Loading and tokenizing count: who waits does not care what for.
        left_s = max(0.0, timeout_s - (time.monotonic() - began))
        return TracedStream(
            GenerationStream(engine, generation, client=client, timeout_s=left_s, patience_s=patience_s)
        )

    @router.post("/generate", response_model=GenerateAnswer, responses=_REFUSALS, openapi_extra=_BODY)
    async def generate(request: Request) -> Response:
        """Generate a whole text, and return it when it is complete."""
        with _refusals_counted(metrics):
            stream = await begin(request)
        async with cancelled_on_disconnect(stream, request.receive):
            events = [event async for batch in stream for event in batch]
        if not events or not isinstance(events[-1], Done):
            raise ClientDisconnect
        answer = answer_json(events)
        return Response(json.dumps(answer, ensure_ascii=False, allow_nan=False), media_type="application/json")

    @router.post(
        "/generate/stream",
        response_class=Response,
        responses=_REFUSALS
        | {
            200: _STREAM_ANSWER,
            406: {"model": ErrorAnswer, "description": "Accept allows neither form: `not_acceptable`."},
        },
        openapi_extra=_BODY,
    )
    async def generate_stream(request: Request) -> Response:
        """Generate a text, and send it token by token."""
        with _refusals_counted(metrics):
            form = accepted_form(request.headers.get("accept", ""))
            stream = await begin(request)
        return StreamResponse(stream, form)

    @router.post(
        "/check",
        response_model=CheckAnswer,
        responses={status: refusal for status, refusal in _REFUSALS.items() if status != 500},
        openapi_extra=CheckBody.openapi(),
    )
    async def check(request: Request) -> CheckAnswer:
        """Say whether each of several prompts can be generated from; the first that cannot is refused as there."""
        with _refusals_counted(metrics):
            timeout_s = timeout_of(request, max_seconds)
            body = CheckBody.from_json(await read_json_body(request))
            model = await loaded_model(store, body.model, timeout_s)
            await asyncio.to_thread(_expect_readable, model, body, max_prompt_tokens)
        return CheckAnswer(model=model.name)

    return router


@contextmanager
def _refusals_counted(metrics: Metrics) -> Iterator[None]:
    try:
        yield
    except ClientDisconnect:
        # Before the whole of a request was there: nothing was refused.
        raise
    except asyncio.CancelledError:
        # The server stops.
        metrics.refused("not_ready")
        raise
    except Exception as error:
        metrics.refused(error_code(error))
        raise


def _expect_short(prompt: tuple[int, ...], max_prompt_tokens: int) -> None:
    if len(prompt) > max_prompt_tokens:
        raise PromptTooLongError(len(prompt), max_prompt_tokens)


def _expect_readable(model: ServedModel, body: CheckBody, max_prompt_tokens: int) -> None:
    for prompt in body.to_prompts():
        _expect_short(encoded_prompt(model, prompt), max_prompt_tokens)
