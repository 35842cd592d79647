"""The one table from errors to answers. Every answer that is not 2xx is the same JSON, and says what to do."""

import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from typing_extensions import TypedDict

from functions.backend.controllers.body_limit import BodyTooLarge, BodyTooSlow
from functions.backend.controllers.media_types import NotAcceptable, UnsupportedMediaType
from functions.backend.controllers.own_name import MisdirectedRequest
from functions.backend.controllers.request_id import HEADER, request_id_of
from functions.backend.controllers.routed_path import routed_path
from functions.backend.controllers.traffic import note_error
from functions.backend.controllers.wire import InvalidJSON
from functions.backend.domain.errors import (
    BackendError,
    DeadlineExceeded,
    Forbidden,
    InvalidPrompt,
    InvalidRequest,
    KeyStoreUnavailable,
    LLMBusy,
    LLMDisconnected,
    LLMFailed,
    LLMMisbehaved,
    LLMRefused,
    LLMTimeout,
    LLMUnavailable,
    OutOfTime,
    PromptTooLong,
    QuotaExceeded,
    SharedQuotaExceeded,
    TimeLimitReached,
    Unauthenticated,
)
from functions.backend.telemetry.cut_off import CutOffError

STATUSES: Mapping[type[BackendError], int] = {
    InvalidJSON: 400,
    NotAcceptable: 406,
    BodyTooLarge: 413,
    PromptTooLong: 413,
    UnsupportedMediaType: 415,
    InvalidPrompt: 422,
    InvalidRequest: 422,
    LLMDisconnected: 502,
    LLMMisbehaved: 502,
    LLMFailed: 502,
    LLMBusy: 503,
    LLMUnavailable: 503,
    LLMTimeout: 504,
    DeadlineExceeded: 504,
    TimeLimitReached: 504,
    Unauthenticated: 401,
    Forbidden: 403,
    QuotaExceeded: 429,
    SharedQuotaExceeded: 429,
    KeyStoreUnavailable: 503,
    BodyTooSlow: 408,
    MisdirectedRequest: 421,
}

# Relayed as they come, or as an event within a stream.
_OF_THE_MODEL_SERVICE = {
    "model_not_found",
    "not_ready",
    "queue_full",
    "slow_reader",
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is not 2xx, before it has a shape."""

    status: int
    code: str
    message: str
    field: str | None = None
    retryable: bool = False
    headers: Mapping[str, str] | None = None


Shape = Callable[[Refusal], tuple[int, Mapping[str, Any]]]
"""Gives the status and the JSON that the clients of some paths expect of a refusal."""


class ErrorDetail(TypedDict):
    """What happened; `field` is the part of the request at fault, `retryable` whether to send the same again."""

    code: str
    message: str
    field: str | None
    retryable: bool


class ErrorBody(TypedDict):
    """Every answer that is not 2xx."""

    error: ErrorDetail


def error_answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Give these errors as FastAPI's `responses` documents them."""
    return {status: {"model": ErrorBody, "description": HTTPStatus(status).phrase} for status in statuses}


def native_shape(refusal: Refusal) -> tuple[int, ErrorBody]:
    """Give a refusal as everything under /api words it."""
    detail = ErrorDetail(code=refusal.code, message=refusal.message, field=refusal.field, retryable=refusal.retryable)
    return refusal.status, ErrorBody(error=detail)


def known_codes() -> list[str]:
    """Give the codes that are known before they happen, our model service's too; another service may have others."""
    own = {error.code for error in STATUSES if hasattr(error, "code")}
    return sorted(own | {"internal", "method_not_allowed", "not_found"} | _OF_THE_MODEL_SERVICE)


def refusal_of(error: BackendError) -> Refusal:
    """Give what the table says of an expected error."""
    status = error.status if isinstance(error, LLMRefused) else STATUSES[type(error)]
    return Refusal(status, error.code, error.message, error.field, error.retryable, error_headers(error))


def unexpected_refusal(request_id: str) -> Refusal:
    """Give what is said of a fault of our own: where to look, and nothing of what is inside."""
    message = f"The request failed for a reason of ours: see the log of the backend, request id {request_id}."
    return Refusal(500, "internal", message, retryable=True)


def install_error_answers(
    app: FastAPI, shapes: Mapping[str, Shape] = MappingProxyType({})
) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Make every error of this app an answer by the table, in the shape of the first prefix that its path has.

    Gives what answers expected errors, for those who stand in front of the app.
    """
    answers = _Answers(shapes)
    app.add_exception_handler(BackendError, answers.expected)
    app.add_exception_handler(HTTPException, answers.unrouted)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)
    app.add_exception_handler(Exception, answers.unexpected)
    return answers.expected


def error_headers(error: BackendError) -> dict[str, str]:
    """Give what an error says outside the body, whatever shape that has: when to come back, and what to bring."""
    match error:
        case LLMBusy() | LLMUnavailable() | KeyStoreUnavailable():
            return {"retry-after": error.retry_after}
        case QuotaExceeded(retry_after_s=float(seconds)):
            return {"retry-after": str(math.ceil(seconds))}
        case QuotaExceeded() | OutOfTime():
            # OpenAI's clients send a 429 or a 5xx again at once, unless this forbids it: the one would never be let
            # in, the other was paid for, and will likely take as long again.
            return {"x-should-retry": "false"}
        case Unauthenticated():
            return {"www-authenticate": 'Bearer realm="huginn"'}
        case BodyTooSlow():
            return {"connection": "close"}  # the rest is not waited for either
        case _:
            return {}


class _Answers:
    def __init__(self, shapes: Mapping[str, Shape]) -> None:
        self._shapes = shapes

    async def expected(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, BackendError)
        note_error(request.scope, error.code)
        return self._answer(request, refusal_of(error))

    async def unrouted(self, request: Request, error: Exception) -> Response:
        """Answer what the router refuses: a path or a method that is not there."""
        assert isinstance(error, HTTPException)
        path = request.url.path[:200]
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = (error.headers or {}).get("Allow", "")
            message = f"{request.method} is not allowed on {path}. Allowed: {allowed}."
            refusal = Refusal(405, "method_not_allowed", message, headers={"allow": allowed})
        else:
            message = f"There is nothing at {path}. The paths are listed in /openapi.json."
            refusal = Refusal(404, "not_found", message)
        note_error(request.scope, refusal.code)
        return self._answer(request, refusal)

    async def unexpected(self, request: Request, error: Exception) -> Response:
        """Answer a fault of our own. The server logs the traceback; the line here ties it to the request."""
        request_id = request_id_of(request.scope)
        if not isinstance(error, CutOffError):
            _log.error("request %s failed; its traceback follows", request_id)
        # This answer is made outside of the middleware that names the others.
        return self._answer(request, replace(unexpected_refusal(request_id), headers={HEADER: request_id}))

    def _answer(self, request: Request, refusal: Refusal) -> Response:
        path = routed_path(request.scope)
        shape = next((shape for prefix, shape in self._shapes.items() if path.startswith(prefix)), native_shape)
        status, body = shape(refusal)
        # A 404 may be stored by whoever stands between, unless it says otherwise (RFC 9110, section 15.1).
        return JSONResponse(body, status_code=status, headers={"cache-control": "no-store", **(refusal.headers or {})})


async def _answer_nobody(_: Request, __: Exception) -> Response:
    """Answer a client that has left: nobody reads it, but the access log shows nginx's number for the case."""
    return Response(status_code=499)
