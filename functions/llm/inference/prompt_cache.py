"""What was read before: states of prompts' beginnings, found by their tokens."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np

from functions.llm.models import State


class CacheObserver(Protocol):
    """Hears how the cache fares."""

    def prompt_looked_up(self, cached_tokens: int) -> None:
        """A prompt's first ``cached_tokens`` needed no reading."""

    def prompt_cache_changed(self, size_bytes: int, states: int) -> None:
        """So many states are kept, of so many bytes."""


@dataclass(frozen=True)
class _Entry:
    state: State
    size_bytes: int


class PromptCache:
    """States by the model and the tokens that led to them; beyond ``max_bytes`` those not used for longest go.

    A state is only ever found for the very tokens it was made of, so a hit changes the time and never the text.
    """

    def __init__(self, max_bytes: int, observer: CacheObserver | None = None) -> None:
        self._max_bytes = max_bytes
        self._observer = observer
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._size_bytes = 0
        self._lock = threading.Lock()

    def longest(self, model: str, tokens: Sequence[int], lengths: Iterable[int]) -> tuple[int, State | None]:
        """Return how many of ``tokens`` need no reading, and the state after them.

        Args:
            model: whose state it is: its digest.
            tokens: a prompt.
            lengths: where it may be cut, rising; the last of them that is known is taken.
        """
        found: tuple[int, State | None] = 0, None
        with self._lock:
            for length, key in _keys(model, tokens, lengths):
                if (entry := self._entries.get(key)) is not None:
                    self._entries.move_to_end(key)
                    found = length, entry.state
        if self._observer is not None:
            self._observer.prompt_looked_up(found[0])
        return found

    def keep(self, model: str, tokens: Sequence[int], state: State) -> None:
        """Remember the state after ``tokens``."""
        size_bytes = sum(array.nbytes for array in jax.tree.leaves(state))
        if size_bytes > self._max_bytes:
            return
        # A copy on the host: a view would keep alive whatever it was computed in.
        entry = _Entry(jax.tree.map(np.array, state), size_bytes)
        ((_, key),) = _keys(model, tokens, [len(tokens)])
        with self._lock:
            if (old := self._entries.pop(key, None)) is not None:
                self._size_bytes -= old.size_bytes
            self._entries[key] = entry
            self._size_bytes += entry.size_bytes
            while self._size_bytes > self._max_bytes:
                self._size_bytes -= self._entries.popitem(last=False)[1].size_bytes
            size_bytes, states = self._size_bytes, len(self._entries)
        if self._observer is not None:
            self._observer.prompt_cache_changed(size_bytes, states)


def _keys(model: str, tokens: Sequence[int], lengths: Iterable[int]) -> Iterable[tuple[int, bytes]]:
    """Return the key of the first n tokens for each n of the rising ``lengths``, each token being hashed once."""
    data: Any = np.asarray(tokens, "<i4")
    hashed = hashlib.blake2b(model.encode() + b"\0", digest_size=32)
    start = 0
    for length in lengths:
        hashed.update(data[start:length].tobytes())
        start = length
        yield length, hashed.digest()
