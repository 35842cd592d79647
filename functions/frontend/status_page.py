"""The status view: what the model service is doing, as figures without scripts and as charts with them."""

import asyncio
import json
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from functions.frontend.backend_client import BackendClient, BackendError
from functions.frontend.entrance import Entrance, Visit
from functions.frontend.errors import AnsweredError, ErrorBody, RefusedError
from functions.frontend.markup import Markup
from functions.frontend.relay import RelayedResponse
from functions.frontend.session_page import PasswordPage
from functions.frontend.status_figures import StatusFigures

# The page must not wait longer for its figures than a reader does for the page.
PATIENCE_S = 3.0


def build_status_page(markup: Markup, backend: BackendClient, entrance: Entrance, asking: PasswordPage) -> APIRouter:
    """The view, and the figures for its scripts."""
    router = APIRouter()
    template = markup.load("status.html")

    @router.api_route("/status", methods=["GET", "HEAD"])
    async def show(request: Request) -> Response:
        visit = entrance.enter(request)
        if visit is None:
            return asking.respond(request, "/status")
        seen: dict[str, Any] = {"sample": None, "figures": None, "error": None}
        try:
            seen["sample"], seen["figures"] = await _read(backend, request.state.request_id, visit)
        except AnsweredError as failure:
            # The page itself is well, and its scripts ask again: what is wrong stands in it.
            seen["error"] = failure.error
        response = markup.respond(request, template, **seen)
        entrance.mark(request, visit, response)
        return response

    @router.get("/api/status")
    async def relay_status(request: Request) -> Response:
        return RelayedResponse(backend, request, None)

    return router


async def _read(backend: BackendClient, request_id: str, visit: Visit) -> tuple[Any, StatusFigures]:
    """The API's answer, and the figures in it.

    Raises:
        BackendError: it could not be had, or cannot be read.
        RefusedError: the API has said no.
    """
    headers = {"accept": "application/json", "x-request-id": request_id, **visit.headers}
    try:
        async with asyncio.timeout(PATIENCE_S), backend.stream("GET", "/api/status", headers) as response:
            body = await response.aread()
    except TimeoutError:
        message = f"The backend did not say within {PATIENCE_S:g} s how it is."
        raise BackendError(504, ErrorBody("backend_timeout", message, retryable=True)) from None
    try:
        sample = json.loads(body)
        if not response.is_success:
            error = sample["error"]
            raise RefusedError(response.status_code, ErrorBody(str(error["code"]), str(error["message"])))
        return sample, StatusFigures.read(sample)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = (
            f"The backend answered {response.status_code} with figures that are not as the API has it ({error!r})."
        )
        raise BackendError(502, ErrorBody("unreadable", message)) from error
