"""Which checkpoint is meant when none is named."""

from collections.abc import Mapping
from pathlib import Path

BUNDLED = Path("ckpts") / "muninn-char"


def default_checkpoint(environ: Mapping[str, str]) -> Path:
    """Return CKPT_PATH's folder, else the bundled one: under the working directory, or next to this program."""
    if chosen := environ.get("CKPT_PATH"):
        return Path(chosen)
    beside_the_program = Path(__file__).parents[3] / BUNDLED
    return beside_the_program if not BUNDLED.exists() and beside_the_program.exists() else BUNDLED
