"""What is refused, as OpenAI's clients expect to read it."""

from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from typing_extensions import TypedDict

from functions.backend.controllers.errors import Refusal

# Clients of this API look for these names; our "invalid_prompt" is its word for one that a policy forbids.
_CODES: Mapping[str, str] = {
    "invalid_prompt": "invalid_request",
    "prompt_too_long": "context_length_exceeded",
    "quota_exceeded": "rate_limit_exceeded",
    "unauthenticated": "invalid_api_key",
}


class OpenAIErrorDetail(TypedDict):
    """What happened; `param` is the part of the request at fault, `code` a stable name for programs."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAIErrorBody(TypedDict):
    """Every answer that is not 2xx."""

    error: OpenAIErrorDetail


def openai_shape(refusal: Refusal) -> tuple[int, OpenAIErrorBody]:
    """Give a refusal as OpenAI words it; what we call 422, content that cannot be served, is a 400 there."""
    status = HTTPStatus.BAD_REQUEST if _is_about_content(refusal) else refusal.status
    return status, openai_error(refusal)


def chat_shape(refusal: Refusal) -> tuple[int, OpenAIErrorBody]:
    """Give the same for conversations: what is a prompt to a model was sent as messages."""
    return openai_shape(replace(refusal, field="messages") if refusal.field == "prompt" else refusal)


def openai_error(refusal: Refusal) -> OpenAIErrorBody:
    """Give the JSON of a refusal."""
    code = _CODES.get(refusal.code, refusal.code)
    detail = OpenAIErrorDetail(message=refusal.message, type=_type(refusal.status), param=refusal.field, code=code)
    return OpenAIErrorBody(error=detail)


def error_answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Give these errors as FastAPI's `responses` documents them."""
    return {status: {"model": OpenAIErrorBody, "description": HTTPStatus(status).phrase} for status in statuses}


def _is_about_content(refusal: Refusal) -> bool:
    return refusal.status == HTTPStatus.UNPROCESSABLE_ENTITY or refusal.code == "prompt_too_long"


def _type(status: int) -> str:
    match status:
        case 401:
            return "authentication_error"
        case 403:
            return "permission_error"
        case 429:
            return "rate_limit_error"
        case _:
            return "server_error" if status >= 500 else "invalid_request_error"
