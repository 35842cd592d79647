"""What XLA compiled once need not be compiled by the next process."""

import logging
import math
import os
from pathlib import Path

import jax

from functions.llm.inference.trusted_files import UntrustedFileError, refuse_what_others_may_write

logger = logging.getLogger(__name__)


def keep_compiled(folder: Path | None) -> None:
    """Let this process keep what it compiles in ``folder``, and find there what others have compiled.

    XLA's key of each program has the versions and the processor's features in it, so nothing is taken that another
    machine made for itself. A folder that can only be read is read; one that others may write to is left alone, for
    what is in it is run.
    """
    if folder is None:
        return
    try:
        # Whatever the umask: who may write here may run code as whoever serves.
        folder.mkdir(0o755, parents=True, exist_ok=True)
    except OSError as error:
        if not folder.is_dir():
            logger.info("What is compiled is not kept: %s: %s", folder, error.strerror)
            return
    try:
        refuse_what_others_may_write(folder, folder.stat())
    except (UntrustedFileError, OSError) as error:
        logger.warning("What is compiled is not kept, nor what was kept used: %s", error)
        return
    for name, value in {
        "jax_compilation_cache_dir": str(folder),
        # By default only what took a second is kept, and ours are a dozen programs that each take about as long. On a
        # disk that can only be read nothing takes long enough, else JAX would warn of each.
        "jax_persistent_cache_min_compile_time_secs": 0.0 if os.access(folder, os.W_OK) else math.inf,
        "jax_persistent_cache_min_entry_size_bytes": -1,
        # Caches for GPUs, which would make folders of their own.
        "jax_persistent_cache_enable_xla_caches": "none",
    }.items():
        jax.config.update(name, value)  # type: ignore[no-untyped-call]
