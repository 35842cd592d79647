"""The model that is served first, as the settings ask for it; importable without the web."""

from pathlib import Path
from typing import TYPE_CHECKING

from functions.llm.checkpoints.checkpoint import Checkpoint, open_checkpoint
from functions.llm.checkpoints.s3_address import S3Address
from functions.llm.inference.model_store import ModelStore
from functions.llm.inference.warm_up import DefaultModel
from functions.llm.settings import Settings

if TYPE_CHECKING:
    from functions.llm.checkpoints.remote import RemoteCheckpoint


def default_model(settings: Settings) -> DefaultModel:
    """Return the first model, not yet loaded, in a store of all the others."""
    if isinstance(settings.ckpt_path, S3Address):
        from functions.llm.checkpoints.remote import RemoteCheckpoint

        assert settings.ckpt_cache is not None  # Settings sees to it
        remote = RemoteCheckpoint(settings.ckpt_path, settings.ckpt_cache)
        return DownloadedModel(_store(settings, remote.folder, remote), remote)
    return DefaultModel(_store(settings, settings.ckpt_path))


class DownloadedModel(DefaultModel):
    """A model that comes from S3 when it is loaded: in the background, like all of its preparation."""

    def __init__(self, store: ModelStore, remote: "RemoteCheckpoint") -> None:
        """Load it from ``store``, which asks ``remote`` for it."""
        super().__init__(store)
        self._remote = remote

    def stop(self, timeout_s: float = 60.0) -> None:
        """Give up, a download that is under way at once."""
        self._remote.stop()
        super().stop(timeout_s)


def _store(settings: Settings, default: Path, remote: "RemoteCheckpoint | None" = None) -> ModelStore:
    def load(path: Path) -> Checkpoint:
        # Beside its folder there is no other checkpoint: whatever is loaded is this one.
        return open_checkpoint(path if remote is None else remote.fetch())

    return ModelStore(default, max_loaded=settings.max_loaded_models, executables=settings.executables_path, load=load)
