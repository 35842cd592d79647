"""GET /livez and GET /readyz."""

from fastapi import APIRouter

from functions.llm.controllers.errors import NotReadyError
from functions.llm.controllers.wire import Alive, ErrorAnswer, Ready
from functions.llm.inference.warm_up import DefaultModel


def health_router(default: DefaultModel) -> APIRouter:
    """Return the routes by which others know how this one is."""
    router = APIRouter(tags=["health"])

    @router.get("/livez")
    async def livez() -> Alive:
        """Say that the process answers."""
        return Alive(status="ok")

    @router.get(
        "/readyz", responses={503: {"model": ErrorAnswer, "description": "The model is not loaded: `not_ready`."}}
    )
    async def readyz() -> Ready:
        """Say whether the default model is loaded and compiled; if nobody has begun to, begin."""
        if not default.ready:
            failure = default.failure
            default.begin()
            if failure is not None:
                raise NotReadyError(f"The model {default.name} cannot be loaded: {failure}.")
            raise NotReadyError(f"The model {default.name} is still being loaded. Try again in a few seconds.")
        return Ready(status="ready", model=default.name)

    return router
