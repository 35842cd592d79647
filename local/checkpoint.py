"""Which checkpoint the model's tier is started with."""

from collections.abc import Mapping
from pathlib import Path

from functions.llm.checkpoints.s3_address import is_s3_address
from functions.llm.commands.default_checkpoint import default_checkpoint
from local.errors import CommandError


def checkpoint_to_serve(named: Path | None, environ: Mapping[str, str]) -> Path:
    """Give the folder that was ``named``, else CKPT_PATH's or the bundled one; what is in S3 has been downloaded.

    Raises:
        CommandError: it could not be downloaded.
    """
    if named is not None:
        return named
    if not is_s3_address(environ.get("CKPT_PATH", "")):
        return default_checkpoint(environ)
    # What a download needs takes as long to import as all else that a start does before it serves.
    from functions.llm.checkpoints.checkpoint import CheckpointError

    try:
        return default_checkpoint(environ)
    except CheckpointError as error:
        raise CommandError(
            str(error), "or serve a folder: --ckpt DIR, or CKPT_PATH=DIR; `huginn models` lists them", exit_code=3
        ) from error
