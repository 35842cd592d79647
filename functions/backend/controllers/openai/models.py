"""GET /v1/models and GET /v1/models/{model}."""

from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from typing_extensions import TypedDict

from functions.backend.controllers.openai.errors import error_answers
from functions.backend.controllers.openai.model_root import model_root_of
from functions.backend.controllers.openai.surface import OpenAISurface
from functions.backend.controllers.request_id import request_id_of
from functions.backend.domain.errors import LLMRefused
from functions.backend.domain.model_card import ModelCard

_FRESH = {"cache-control": "no-store"}


class OpenAIModel(TypedDict):
    """A model that can be asked; `created` is 0, for a checkpoint does not say when it was made."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class OpenAIModels(TypedDict):
    """The models that can be asked, the one that serves by default first."""

    object: Literal["list"]
    data: list[OpenAIModel]


def openai_models_router(surface: OpenAISurface) -> APIRouter:
    """Give the routes that tell of models."""
    router = APIRouter(prefix="/v1", tags=["openai"])

    async def known(request: Request) -> tuple[ModelCard, ...]:
        cards = await surface.gateway.models(request_id_of(request.scope))
        root = model_root_of(request.scope)
        if root is None:
            return cards
        own = tuple(card for card in cards if card.name == root)
        if not own:
            raise model_not_found(root, cards)
        return own

    @router.get(
        "/models",
        summary="List the models that can be asked",
        responses={200: {"model": OpenAIModels, "description": "The models"}, **error_answers(401, 500, 502, 503, 504)},
    )
    async def models(request: Request) -> Response:
        await surface.principal_of(request)
        cards = sorted(await known(request), key=lambda card: not card.default)
        return JSONResponse(OpenAIModels(object="list", data=[_body(card) for card in cards]), headers=_FRESH)

    # A client may look for a name with a slash in it, which is as unknown as any other.
    @router.get(
        "/models/{model:path}",
        summary="Tell of one model",
        responses={200: {"model": OpenAIModel, "description": "It"}, **error_answers(401, 404, 500, 502, 503, 504)},
        openapi_extra={"parameters": [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]},
    )
    async def model(request: Request) -> Response:
        name = request.path_params["model"]
        await surface.principal_of(request)
        cards = await known(request)
        card = next((card for card in cards if card.name == name), None)
        if card is None:
            raise model_not_found(name, cards)
        return JSONResponse(_body(card), headers=_FRESH)

    return router


def model_not_found(name: str, cards: tuple[ModelCard, ...]) -> LLMRefused:
    """Give the refusal of a name that no model has, as the model service words it."""
    there = f"The models here: {', '.join(card.name for card in cards)}." if cards else "There is no model here at all."
    return LLMRefused(404, "model_not_found", f"There is no model {name[:100]!r}. {there}", field="model")


def _body(card: ModelCard) -> OpenAIModel:
    return OpenAIModel(id=card.name, object="model", created=0, owned_by="huginn")
