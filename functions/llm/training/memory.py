"""How this process gets its memory."""

import ctypes
import sys

# malloc.h: which knob of mallopt is which.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
NEVER = -1


def keep_freed_memory() -> None:
    """Keep what is freed for the next allocation, instead of giving it back to the system; only glibc can.

    XLA takes and frees all of a step's buffers, a gigabyte, at every step. By default glibc maps each such block anew,
    and the system clears it page by page: a quarter of a training's time went there.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, NEVER)
    # Other threads' arenas could not grow that far, and would map after all.
    mallopt(M_ARENA_MAX, 1)
