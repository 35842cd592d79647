"""The model that is served first, as the settings ask for it; importable without the web."""

from functions.llm.inference.model_store import ModelStore
from functions.llm.inference.warm_up import DefaultModel
from functions.llm.settings import Settings


def default_model(settings: Settings) -> DefaultModel:
    """Return the first model, not yet loaded, in a store of all the others."""
    return DefaultModel(
        ModelStore(settings.ckpt_path, max_loaded=settings.max_loaded_models, executables=settings.executables_path)
    )
