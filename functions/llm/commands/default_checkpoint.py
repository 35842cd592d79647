"""Which checkpoint is meant when none is named."""

from collections.abc import Mapping
from pathlib import Path

from functions.llm.checkpoints.s3_address import is_s3_address

BUNDLED = Path("ckpts") / "muninn-char"


def default_checkpoint(environ: Mapping[str, str]) -> Path:
    """Return CKPT_PATH's folder, else the bundled one: under the working directory, or next to this program.

    What CKPT_PATH names in S3 is downloaded first, unless it is here already; somebody who waits at a terminal sees how
    far it is.

    Raises:
        CheckpointError: it cannot be had from S3; the message says why, and what can be done.
    """
    if chosen := environ.get("CKPT_PATH"):
        return _downloaded(chosen, environ) if is_s3_address(chosen) else Path(chosen)
    beside_the_program = Path(__file__).parents[3] / BUNDLED
    return beside_the_program if not BUNDLED.exists() and beside_the_program.exists() else BUNDLED


def _downloaded(url: str, environ: Mapping[str, str]) -> Path:
    from functions.llm.checkpoints.checkpoint import CheckpointError
    from functions.llm.checkpoints.remote import fetch_checkpoint
    from functions.llm.commands.download_progress import download_progress
    from functions.llm.settings import checkpoint_cache

    cache = checkpoint_cache(environ)
    if cache is None:
        raise CheckpointError(f"{url}: there is no HOME to keep it in; set CKPT_CACHE to a folder for it")
    with download_progress(url) as progress:
        return fetch_checkpoint(url, cache, progress)
