"""GET /api/status: what the page's view of the whole is drawn from."""

import time
import uuid
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from typing_extensions import TypedDict

from functions.backend.application.ledger import ServiceStatus
from functions.backend.application.read_status import ReadStatus
from functions.backend.controllers.errors import error_answers
from functions.backend.controllers.principal import PrincipalOf
from functions.backend.controllers.request_id import request_id_of
from functions.backend.controllers.traffic import Traffic
from functions.backend.domain.llm_status import LLMStatus


class BackendStatus(TypedDict):
    """What this backend has answered since its start: by the statuses' classes, and the errors by their codes."""

    requests: dict[str, int]
    errors: dict[str, int]
    open_streams: int


class StatusBody(TypedDict):
    """Now, in seconds since 1970; the model service's instances taken together, and this backend.

    What is counted only grows: take the differences between two answers of the same `epoch`, whatever instances have
    come and gone between them. With another epoch all counts have begun anew. `llm` is null while no instance answers.
    """

    time: float
    epoch: str
    instances: int
    uptime_s: float
    models: list[str]
    llm: LLMStatus | None
    backend: BackendStatus


def status_router(read_status: ReadStatus, traffic: Traffic, principal_of: PrincipalOf) -> APIRouter:
    """Give the route that tells those whom we know how the model service and this backend fare."""
    router = APIRouter(prefix="/api", tags=["health"])
    began, name = time.monotonic(), uuid.uuid4().hex

    @router.get(
        "/status",
        summary="What is being done, in numbers",
        responses={200: {"model": StatusBody, "description": "The numbers"}, **error_answers(401, 500, 503)},
    )
    async def status(request: Request) -> Response:
        await principal_of(request)
        service = await read_status(request_id_of(request.scope))
        ours = BackendStatus(requests=traffic.by_class(), errors=traffic.by_code(), open_streams=traffic.open_streams)
        body = status_body(service, ours, name=name, time=time.time(), uptime_s=time.monotonic() - began)
        return JSONResponse(body, headers={"cache-control": "no-store"})

    return router


def status_body(
    service: ServiceStatus, backend: BackendStatus, *, name: str, time: float, uptime_s: float
) -> dict[str, Any]:
    """Give a `StatusBody` as JSON; `name` is that of the process which has counted."""
    return {
        "time": time,
        "epoch": f"{name}-{service.epoch}",
        "instances": service.instances,
        "uptime_s": uptime_s,
        "models": service.models,
        "llm": service.llm and asdict(service.llm),
        "backend": backend,
    }
