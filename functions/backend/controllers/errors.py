"""The one table from errors to answers. Every answer that is not 2xx is the same JSON, and says what to do."""

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from typing_extensions import TypedDict

from functions.backend.controllers.body_limit import BodyTooLarge
from functions.backend.controllers.media_types import NotAcceptable, UnsupportedMediaType
from functions.backend.controllers.request_id import HEADER, request_id_of
from functions.backend.controllers.traffic import note_error
from functions.backend.controllers.wire import InvalidJSON
from functions.backend.domain.errors import (
    BackendError,
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
    QuotaExceeded,
    Unauthenticated,
)

STATUSES: Mapping[type[BackendError], int] = {
    InvalidJSON: 400,
    NotAcceptable: 406,
    BodyTooLarge: 413,
    UnsupportedMediaType: 415,
    InvalidPrompt: 422,
    InvalidRequest: 422,
    LLMDisconnected: 502,
    LLMMisbehaved: 502,
    LLMFailed: 502,
    LLMBusy: 503,
    LLMUnavailable: 503,
    LLMTimeout: 504,
    Unauthenticated: 401,
    Forbidden: 403,
    QuotaExceeded: 429,
    KeyStoreUnavailable: 503,
}

_log = logging.getLogger(__name__)


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


def install_error_answers(app: FastAPI) -> None:
    """Make every error of this app an answer by the table."""
    app.add_exception_handler(BackendError, _answer_expected)
    app.add_exception_handler(HTTPException, _answer_unrouted)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)
    app.add_exception_handler(Exception, _answer_unexpected)


def known_codes() -> list[str]:
    """Give the codes that are known before they happen; a model service may have others."""
    own = {error.code for error in STATUSES if hasattr(error, "code")}
    return sorted(own | {"internal", "method_not_allowed", "not_found"})


async def _answer_expected(request: Request, error: Exception) -> Response:
    assert isinstance(error, BackendError)
    note_error(request.scope, error.code)
    status = error.status if isinstance(error, LLMRefused) else STATUSES[type(error)]
    headers = error_headers(error)
    return _answer(status, error.code, error.message, error.field, retryable=error.retryable, headers=headers)


def error_headers(error: BackendError) -> dict[str, str]:
    """Give what an error says outside the body, whatever shape that has: when to come back, and what to bring."""
    match error:
        case LLMBusy() | LLMUnavailable() | KeyStoreUnavailable():
            return {"retry-after": error.retry_after}
        case QuotaExceeded(retry_after_s=float(seconds)):
            return {"retry-after": str(math.ceil(seconds))}
        case Unauthenticated():
            return {"www-authenticate": 'Bearer realm="huginn"'}
        case _:
            return {}


async def _answer_unrouted(request: Request, error: Exception) -> Response:
    """Answer what the router refuses: a path or a method that is not there."""
    assert isinstance(error, HTTPException)
    path = request.url.path[:200]
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "")
        message = f"{request.method} is not allowed on {path}. Allowed: {allowed}."
        note_error(request.scope, "method_not_allowed")
        return _answer(405, "method_not_allowed", message, headers={"allow": allowed})
    note_error(request.scope, "not_found")
    return _answer(404, "not_found", f"There is nothing at {path}. The paths are listed in /openapi.json.")


async def _answer_nobody(_: Request, __: Exception) -> Response:
    """Answer a client that has left: nobody reads it, but the access log shows nginx's number for the case."""
    return Response(status_code=499)


async def _answer_unexpected(request: Request, _: Exception) -> Response:
    """Answer a fault of our own. The server logs the traceback; the line here ties it to the request."""
    request_id = request_id_of(request.scope)
    _log.error("request %s failed; its traceback follows", request_id)
    message = f"The request failed for a reason of ours: see the log of the backend, request id {request_id}."
    # This answer is made outside of the middleware that names the others.
    return _answer(500, "internal", message, retryable=True, headers={HEADER: request_id})


def _answer(
    status: int,
    code: str,
    message: str,
    field: str | None = None,
    *,
    retryable: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Response:
    body = ErrorBody(error=ErrorDetail(code=code, message=message, field=field, retryable=retryable))
    # A 404 may be stored by whoever stands between, unless it says otherwise (RFC 9110, section 15.1).
    return JSONResponse(body, status_code=status, headers={"cache-control": "no-store", **(headers or {})})
