"""The model that a request asks for, in memory."""

import asyncio

from functions.llm.controllers.errors import NotReadyError
from functions.llm.inference.model_store import ModelStore
from functions.llm.inference.served_model import ServedModel


async def loaded_model(store: ModelStore, name: str | None, timeout_s: float) -> ServedModel:
    """Return the model of that name, the default if None; loading takes seconds, and holds nobody else up.

    Raises:
        ModelNotFoundError, CheckpointError: there is no such model, or it is broken.
        NotReadyError: it is still being loaded after ``timeout_s``.
    """
    model = store.loaded(name)
    if model is not None:
        return model
    try:
        # From S3 it may take minutes, and goes on when this request no longer waits for it.
        return await asyncio.wait_for(asyncio.to_thread(store.get, name), timeout_s)
    except TimeoutError as error:
        raise NotReadyError(
            f"The model {name or store.default_name} is still being loaded, longer than the request allowed. "
            "Try again in a few seconds."
        ) from error
