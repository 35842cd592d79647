"""GET /livez and GET /readyz."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from typing_extensions import TypedDict

from functions.backend.controllers.errors import error_answers
from functions.backend.controllers.request_id import request_id_of
from functions.backend.domain.errors import LLMBusy


class HealthBody(TypedDict):
    """How the function is."""

    status: str


def health_router(is_ready: Callable[[str], Awaitable[bool]]) -> APIRouter:
    """Give the routes that tell how the function is; `is_ready` says so of the model service, to anybody who asks."""
    router = APIRouter(tags=["health"])

    @router.get("/livez", summary="Is the process alive?", responses={200: {"model": HealthBody}})
    async def livez() -> Response:
        return _answer("ok")

    @router.get(
        "/readyz",
        summary="Would a generation be served now?",
        responses={200: {"model": HealthBody}, **error_answers(500, 503)},
    )
    async def readyz(request: Request) -> Response:
        if not await is_ready(request_id_of(request.scope)):
            raise LLMBusy(
                "not_ready",
                "The model service does not answer, or is still loading its model. Try again in a few seconds.",
                retry_after="2",
            )
        return _answer("ready")

    return router


def _answer(status: str) -> Response:
    return JSONResponse(HealthBody(status=status), headers={"cache-control": "no-store"})
