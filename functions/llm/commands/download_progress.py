"""How far a download is, in one line on standard error."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from functions.llm.checkpoints.range_download import Progress

# What is there sooner needs no line, and a line that changes more often cannot be read.
SHOWN_AFTER_S = 0.5
SHOWN_EVERY_S = 0.2


@contextmanager
def download_progress(what: str) -> Iterator[Progress]:
    """Within the context, what draws a line about ``what`` on a terminal; elsewhere it does nothing."""
    began = time.monotonic()
    shown_at: float | None = None
    there_before: int | None = None

    def show(done_bytes: int, total_bytes: int) -> None:
        nonlocal shown_at, there_before
        now = time.monotonic()
        # What an earlier download has left says nothing of the network's speed.
        there_before = done_bytes if there_before is None else there_before
        if now - began < SHOWN_AFTER_S or (shown_at is not None and now - shown_at < SHOWN_EVERY_S):
            return
        shown_at = now
        speed = (done_bytes - there_before) / (now - began) / 1e6
        line = f"huginn: {what}: {done_bytes / 1e6:.0f} of {total_bytes / 1e6:.0f} MB, {speed:.0f} MB/s"
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()

    def say_nothing(_done_bytes: int, _total_bytes: int) -> None:
        pass

    try:
        yield show if sys.stderr.isatty() else say_nothing
    finally:
        if shown_at is not None:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
