"""Tests of what happens in time, on a machine that may be kept from its work just then."""

import functools
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import pytest

# Less than any margin that these tests depend on.
PAUSE_S = 0.03
TRIES = 10
_LOOKS_EVERY_S = 0.005


class Watch:
    """How long, at most, each CPU kept this process waiting within the block."""

    def __init__(self) -> None:
        self.longest_pause_s = 0.0
        self._over = threading.Event()
        cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [None]
        self._threads = [threading.Thread(target=self._look, args=(cpu,), name="watch") for cpu in cpus]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _look(self, cpu: int | None) -> None:
        if cpu is not None:
            # A neighbour of this machine may take one of its CPUs and leave the others. 0 is this thread alone.
            os.sched_setaffinity(0, {cpu})
        before = time.monotonic()
        while not self._over.wait(_LOOKS_EVERY_S):
            now = time.monotonic()
            self.longest_pause_s = max(self.longest_pause_s, now - before - _LOOKS_EVERY_S)
            before = now
        self.longest_pause_s = max(self.longest_pause_s, time.monotonic() - before - _LOOKS_EVERY_S)


def undisturbed(test: Callable[..., None]) -> Callable[..., None]:
    """A test whose failure counts only if the machine let it run all the time, or never does: else it is begun anew.

    For what cannot be said without a clock: that something lasts no longer, or does not end earlier. The fixtures are
    those of the first try.
    """

    @functools.wraps(test)
    def tried(*arguments: Any, **named: Any) -> None:
        for _ in range(TRIES - 1):
            watch = Watch()
            try:
                with watch:
                    return test(*arguments, **named)
            except (Exception, pytest.fail.Exception):
                if watch.longest_pause_s < PAUSE_S:
                    raise
        return test(*arguments, **named)

    return tried
