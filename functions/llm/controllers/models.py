"""GET /models."""

from dataclasses import asdict

from fastapi import APIRouter

from functions.llm.controllers.wire import ModelAnswer, ModelsAnswer
from functions.llm.inference.model_store import ModelStore


def models_router(store: ModelStore) -> APIRouter:
    """Return the route that lists what can be asked for."""
    router = APIRouter(tags=["models"])

    @router.get("/models")
    def models() -> ModelsAnswer:
        """List the models, by name."""
        return ModelsAnswer(
            models=[
                ModelAnswer(**asdict(description), default=description.name == store.default_name)
                for description in store.descriptions()
            ]
        )

    return router
