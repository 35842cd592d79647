"""Whose compiled code is run: that of whoever serves, and of root."""

import os
import stat
from pathlib import Path


class UntrustedFileError(Exception):
    """Somebody else may have written it; the message says what."""


def refuse_what_others_may_write(path: Path, found: os.stat_result) -> None:
    """Return if only this user and root can have written ``path``, of which ``found`` is known; else raise.

    Raises:
        UntrustedFileError: it belongs to somebody else, or others may write to it.
    """
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UntrustedFileError(f"{path}: it belongs to somebody else, or others may write to it")


def trusted_content(path: Path) -> bytes:
    """Return what is in the file ``path``.

    Raises:
        UntrustedFileError: somebody else may have written it.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        # Asked of what is open: under the name there may be another file a moment later.
        refuse_what_others_may_write(path, os.fstat(file.fileno()))
        return file.read()
