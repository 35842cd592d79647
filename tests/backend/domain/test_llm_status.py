"""Instances are added up."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.backend.adapters.llm_wire import read_status
from functions.backend.domain.llm_status import Histogram, LLMStatus, total

ONE = read_status((Path(__file__).parents[2] / "contract" / "golden" / "status_llm.json").read_bytes())

counts = st.integers(0, 10**9)
amounts = st.integers(0, 10**6).map(float)  # whole ones, whose sums are exact
histograms = st.tuples(st.lists(counts, min_size=3, max_size=3), amounts).map(
    lambda drawn: Histogram((0.1, 1.0), tuple(drawn[0]), drawn[1])
)
SUMS = (
    *("tokens_generated", "prompt_tokens", "cached_prompt_tokens", "queue_depth", "max_queue", "active", "slots"),
    *("cache_hits", "cache_misses", "resident_bytes", "cpu_seconds"),
)
statuses = st.builds(
    LLMStatus,
    **dict.fromkeys(SUMS[:-1], counts),
    cpu_seconds=amounts,
    watts_per_cpu=amounts,
    requests=st.dictionaries(st.sampled_from(["stop", "length", "queue_full"]), st.integers(1, 10**9)),
    time_to_first_token_s=histograms,
    inter_token_s=histograms,
)


@given(st.lists(statuses, min_size=1, max_size=4), statuses)
def test_adding_is_adding(some, another):
    """One more instance changes the total as it would change each number; the order does not matter."""
    both = total([*some, another])
    assert total([total(some), another]) == both == total([another, *reversed(some)])
    for name in SUMS:
        assert getattr(both, name) == getattr(total(some), name) + getattr(another, name)
    assert both.requests == Counter(total(some).requests) + Counter(another.requests)
    for name in ("time_to_first_token_s", "inter_token_s"):
        ours, theirs, sums = (getattr(status, name) for status in (total(some), another, both))
        assert sums.counts == tuple(a + b for a, b in zip(ours.counts, theirs.counts, strict=True))
        assert sums.sum == ours.sum + theirs.sum
    assert total([another]) == another


def test_what_measures_otherwise_cannot_be_added():
    """Two versions with other bounds."""
    other = replace(ONE.llm, inter_token_s=Histogram((1.0,), (0, 0), 0.0))
    with pytest.raises(ValueError, match="different bounds"):
        total([ONE.llm, other])


def test_a_histogram_has_a_count_more_than_bounds():
    """Or it is none."""
    with pytest.raises(ValueError, match="not one more"):
        Histogram((0.1,), (1,), 0.0)
