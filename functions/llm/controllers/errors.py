"""One table from what went wrong to what the client is told."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions.llm.checkpoints.checkpoint import CheckpointError
from functions.llm.controllers.request_id import request_id_of
from functions.llm.inference.errors import (
    DeadlineExceededError,
    EngineStoppedError,
    InvalidOptionError,
    InvalidPromptError,
    ModelNotFoundError,
    PromptTooLongError,
    QueueFullError,
    SlowReaderError,
)
from functions.llm.telemetry.current import note_error

RETRY_AFTER_S = 1

logger = logging.getLogger(__name__)


class InvalidJSONError(Exception):
    """The body is no JSON."""


class InvalidBodyError(Exception):
    """The body is JSON, but no request."""

    def __init__(self, field: str | None, message: str) -> None:
        super().__init__(message)
        self.field = field


class BodyTooLargeError(Exception):
    """The body is larger than any request."""


class BodyTooSlowError(Exception):
    """The body is not here in time."""


class UnsupportedMediaTypeError(Exception):
    """The body says of itself that it is no JSON."""


class NotAcceptableError(Exception):
    """The client takes none of the forms that there are."""


class NotReadyError(Exception):
    """The default model is not loaded."""


@dataclass(frozen=True)
class Problem:
    """What the client is told: the fields of the error's JSON, and the status and headers around them."""

    status: int
    code: str
    message: str
    field: str | None = None
    retryable: bool = False
    headers: Mapping[str, str] | None = None

    def to_response(self) -> Response:
        """Return the error as every tier words it."""
        return Response(self.to_json(), self.status, self.headers, "application/json")

    def to_json(self) -> bytes:
        """Return the error's body."""
        error = {"code": self.code, "message": self.message, "field": self.field, "retryable": self.retryable}
        return json.dumps({"error": error}, ensure_ascii=False).encode()


@dataclass(frozen=True)
class _Row:
    status: int
    code: str
    field: str | None = None
    retryable: bool = False


_TABLE: dict[type[Exception], _Row] = {
    InvalidJSONError: _Row(400, "invalid_json"),
    ModelNotFoundError: _Row(404, "model_not_found", "model"),
    NotAcceptableError: _Row(406, "not_acceptable"),
    BodyTooLargeError: _Row(413, "body_too_large"),
    PromptTooLongError: _Row(413, "prompt_too_long", "prompt"),
    UnsupportedMediaTypeError: _Row(415, "unsupported_media_type"),
    InvalidBodyError: _Row(422, "invalid_request"),
    InvalidOptionError: _Row(422, "invalid_request"),
    InvalidPromptError: _Row(422, "invalid_prompt", "prompt"),
    NotReadyError: _Row(503, "not_ready", retryable=True),
    CheckpointError: _Row(503, "not_ready", retryable=True),
    EngineStoppedError: _Row(503, "not_ready", retryable=True),
    QueueFullError: _Row(503, "queue_full", retryable=True),
    DeadlineExceededError: _Row(504, "deadline_exceeded", retryable=True),
    SlowReaderError: _Row(408, "slow_reader", retryable=True),
    BodyTooSlowError: _Row(408, "request_timeout", retryable=True),
}


_INTERNAL = _Row(500, "internal", retryable=True)


def error_code(error: Exception) -> str:
    """Return the code that the client is told."""
    code = _TABLE.get(type(error), _INTERNAL).code
    # Whatever is wrong with the prompt, its code says that it is the prompt.
    return "invalid_prompt" if code == "invalid_request" and getattr(error, "field", None) == "prompt" else code


def known_codes() -> list[str]:
    """Return the codes that a request may be refused with."""
    return sorted({"internal", "invalid_prompt", *(row.code for row in _TABLE.values())})


def problem_of(error: Exception, request_id: str) -> Problem:
    """Return what the client is told about ``error``; what is not for clients is logged, and only the id is told."""
    row = _TABLE.get(type(error), _INTERNAL)
    message = str(error)
    if row is _INTERNAL:
        logger.error("Request %s failed", request_id, exc_info=error)
        message = f"The request failed for a reason of ours: see the log of the llm function, request id {request_id}."
    elif isinstance(error, CheckpointError):
        # It names paths, addresses and digests: for who runs this, and not for who asks.
        logger.error("Request %s: its model cannot be loaded: %s", request_id, error)
        message = (
            "The model cannot be loaded. Try again in a while; if that does not help, tell the operator: the log of "
            f"the llm function has the reason, request id {request_id}."
        )
    blamed = row.field or getattr(error, "field", None)
    retry_after_s = error.retry_after_s if isinstance(error, QueueFullError) else RETRY_AFTER_S
    # After a 408 the rest of the request is not waited for either.
    headers = {503: {"retry-after": str(retry_after_s)}, 408: {"connection": "close"}}.get(row.status)
    code = error_code(error)
    note_error(code)
    return Problem(row.status, code, message, blamed, row.retryable, headers)


async def answer_error(request: Request, error: Exception) -> Response:
    """Return the response to an error of the table."""
    return problem_of(error, request_id_of(request.scope)).to_response()


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """Return the response to what the router itself refuses: a path, or a method."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    path = request.url.path[:200]
    match error.status_code:
        case 404:
            code, message = "not_found", f"There is nothing at {path}. The paths are listed in /openapi.json."
        case 405:
            allowed = headers.get("Allow", headers.get("allow", ""))
            code, message = "method_not_allowed", f"{request.method} is not allowed on {path}. Allowed: {allowed}."
        case _:
            code, message = "invalid_request", f"{error.detail}."
    note_error(code)
    return Problem(error.status_code, code, message, headers=headers).to_response()


async def answer_nobody(_: Request, __: Exception) -> Response:
    """Return the response to a client that has left: nobody reads it, and the log shows nginx's number for the case."""
    return Response(status_code=499)


HANDLERS = dict.fromkeys(_TABLE, answer_error) | {
    HTTPException: answer_http_exception,
    ClientDisconnect: answer_nobody,
}


class InternalErrors:
    """Answers what nobody foresaw with the same JSON as every other error."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass through; an exception becomes a 500, or cuts a response short that has begun."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception as error:
            if started:
                raise
            await problem_of(error, request_id_of(scope)).to_response()(scope, receive, send)
