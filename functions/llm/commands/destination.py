"""Where a command may put a checkpoint."""

from pathlib import Path


def not_replaceable(destination: Path) -> str | None:
    """Return why --force must not touch ``destination``: it is no checkpoint, or hours of work on one."""
    if not destination.is_dir():
        return "is a file"
    if (destination / "training").exists():
        return "holds a training of its own"
    if any(destination.iterdir()) and not (destination / "config.json").is_file():
        return "is a folder of something else"
    return None
