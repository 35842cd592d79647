"""The model that is served first, as the settings ask for it; importable without the web."""

from pathlib import Path
from typing import TYPE_CHECKING

from functions.llm.checkpoints.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from functions.llm.checkpoints.s3_address import S3Address
from functions.llm.inference.model_store import ModelStore, checkpoint_names
from functions.llm.inference.warm_up import DefaultModel
from functions.llm.settings import Settings

if TYPE_CHECKING:
    from functions.llm.checkpoints.remote import RemoteCheckpoint


def expect_checkpoint(settings: Settings) -> None:
    """Refuse to start where there is no checkpoint in the folder that is served first.

    Whoever waits for a server would wait for minutes until it is given up, and none comes there by itself. What is in
    S3 may be on its way, and a Lambda is kept: there requests are answered 503, and it is tried again.

    Raises:
        CheckpointError: says what lies beside that folder.
    """
    if isinstance(settings.ckpt_path, S3Address) or settings.lambda_name is not None:
        return
    config = settings.ckpt_path.absolute() / "config.json"
    try:
        config.open("rb").close()
    except PermissionError as error:
        raise CheckpointError(
            f"CKPT_PATH is '{settings.ckpt_path}', and {config} cannot be read ({error.strerror}): let this process "
            "read it; in a container it is nobody: chmod -R a+rX"
        ) from error
    except OSError as error:
        there = checkpoint_names(config.parent.parent)
        beside = f"beside it: {', '.join(there)}" if there else "and there is none beside it"
        raise CheckpointError(
            f"CKPT_PATH is '{settings.ckpt_path}', and {config} cannot be read ({error.strerror}): a checkpoint is a "
            f"folder with config.json in it, {beside}. Set CKPT_PATH to one, or put one there; `docker compose` has "
            "those of ./ckpts, or of the folder that HUGINN_CKPTS names, in /ckpts"
        ) from error


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
    first = default.resolve()

    def load(path: Path) -> Checkpoint:
        # Beside its folder there is no other checkpoint: whatever is loaded is this one.
        checkpoint = open_checkpoint(path if remote is None else remote.fetch())
        if path == first:
            _refuse_others(settings, checkpoint.digest)
        return checkpoint

    return ModelStore(default, max_loaded=settings.max_loaded_models, executables=settings.executables_path, load=load)


def _refuse_others(settings: Settings, digest: str) -> None:
    """Serve no other weights than those that were tried, whatever has come to lie under the same address."""
    if settings.checkpoint_digest not in {None, digest}:
        raise CheckpointError(
            f"{settings.ckpt_path}: config.json's digest is {digest}, CHECKPOINT_DIGEST says "
            f"{settings.checkpoint_digest}; the checkpoint was replaced: put the former one back, or set the variable "
            "to what is to be served"
        )
