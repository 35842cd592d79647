"""GET /api/llm/models."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from functions.backend.application.llm_gateway import LLMGateway
from functions.backend.controllers.errors import error_answers
from functions.backend.controllers.principal import PrincipalOf
from functions.backend.controllers.request_id import request_id_of
from functions.backend.controllers.wire import ModelsBody, models_body


def models_router(gateway: LLMGateway, principal_of: PrincipalOf) -> APIRouter:
    """Give the route that lists the models, for those whom we know."""
    router = APIRouter(prefix="/api/llm", tags=["models"])

    @router.get(
        "/models",
        summary="List the models that can be asked",
        responses={200: {"model": ModelsBody, "description": "The models"}, **error_answers(401, 500, 502, 503, 504)},
    )
    async def models(request: Request) -> Response:
        await principal_of(request)
        body = models_body(await gateway.models(request_id_of(request.scope)))
        return JSONResponse(body, headers={"cache-control": "no-store"})

    return router
