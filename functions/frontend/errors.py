"""Errors as every tier of Huginn writes them: JSON with a code, words, and whether trying again can help."""

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse


@dataclass(frozen=True)
class ErrorBody:
    """What went wrong: `code` for programs, `message` for people, `field` for the value at fault.

    `retry_after_s` is when trying again makes sense, where that is known; it is told in a header.
    """

    code: str
    message: str
    field: str | None = None
    retryable: bool = False
    retry_after_s: int | None = None


class AnsweredError(Exception):
    """A failure that knows its answer: this status and this error, whether they become JSON or a page."""

    def __init__(self, status: int, error: ErrorBody) -> None:
        """Keep both for the one who writes the answer."""
        super().__init__(error.message)
        self.status = status
        self.error = error


class RefusedError(AnsweredError):
    """The request is not one that can be answered."""


def error_response(status: int, error: ErrorBody, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The error as a response."""
    content = {
        "error": {"code": error.code, "message": error.message, "field": error.field, "retryable": error.retryable}
    }
    if error.retry_after_s is not None:
        headers = {"retry-after": str(error.retry_after_s), **(headers or {})}
    return JSONResponse(content, status, headers)


def routing_error_response(error: HTTPException, method: str, path: str) -> JSONResponse:
    """The answer to a request for which there is no route."""
    if error.status_code == 405:
        allowed = (error.headers or {}).get("allow", "")
        body = ErrorBody("method_not_allowed", f"{method} is not possible on {path}; use {allowed or 'another method'}")
    else:
        body = ErrorBody("not_found", f"There is nothing at {path}. The page is at /, the API under /api/llm/.")
    return error_response(error.status_code, body, error.headers)
