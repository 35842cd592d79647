"""What was read before is found again, and nothing else."""

import numpy as np

from functions.llm.inference.prompt_cache import PromptCache


def state(value, size=10):
    return {"h": np.full((1, size), value, np.float32)}


def test_the_longest_known_beginning_is_found():
    """Of the cuts asked for, the last that is there."""
    cache = PromptCache(1000)
    for length in (2, 4, 6):
        cache.keep("m", range(length), state(length))
    length, found = cache.longest("m", range(9), [2, 4, 5, 8])
    assert (length, found["h"][0, 0]) == (4, 4)
    assert cache.longest("m", range(9), [3, 5]) == (0, None)


def test_other_tokens_and_other_models_are_not_it():
    """A state is found for the very tokens and the very model that it was made of."""
    cache = PromptCache(1000)
    cache.keep("m", [1, 2, 3], state(1))
    assert cache.longest("m", [1, 2, 4], [3]) == (0, None)
    assert cache.longest("n", [1, 2, 3], [3]) == (0, None)
    assert cache.longest("m", [1, 2], [2]) == (0, None)


def test_what_was_not_used_for_longest_goes_first():
    """Within the limit of bytes, counted as the arrays' own."""
    cache = PromptCache(120)
    for value in (1, 2, 3):
        cache.keep("m", [value], state(value))
    cache.longest("m", [1], [1])
    cache.keep("m", [4], state(4))
    assert [cache.longest("m", [value], [1])[0] for value in (1, 2, 3, 4)] == [1, 0, 1, 1]


def test_what_is_kept_twice_counts_once():
    """Two that read the same at the same time leave one state."""
    sizes = []

    class Watcher:
        def prompt_looked_up(self, cached_tokens): ...

        def prompt_cache_changed(self, size_bytes, states):
            sizes.append((size_bytes, states))

    cache = PromptCache(1000, Watcher())
    cache.keep("m", [1], state(1))
    cache.keep("m", [1], state(1))
    assert sizes == [(40, 1), (40, 1)]


def test_a_state_larger_than_the_cache_is_not_kept():
    """And drives nothing out."""
    cache = PromptCache(100)
    cache.keep("m", [1], state(1))
    cache.keep("m", [2], state(2, size=1000))
    assert cache.longest("m", [2], [1]) == (0, None)
    assert cache.longest("m", [1], [1])[0] == 1


def test_what_is_kept_is_a_copy():
    """Whoever goes on computing in the array it came from changes nothing."""
    cache, original = PromptCache(1000), state(1)
    cache.keep("m", [1], original)
    original["h"][:] = 9
    assert cache.longest("m", [1], [1])[1]["h"][0, 0] == 1
