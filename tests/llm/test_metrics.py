"""Prometheus is told the same, however the observations are made."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from functions.llm.metrics import INTER_TOKEN_BUCKETS_S, Metrics, RepeatedHistogram

# Bounds themselves too: what is equal to a bound is below it.
seconds = st.floats(0, 10) | st.sampled_from(INTER_TOKEN_BUCKETS_S)


def exposition(registry: CollectorRegistry) -> list[str]:
    """What is scraped, without the time at which a metric was made."""
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


@given(st.lists(st.tuples(seconds, st.integers(1, 16))))
def test_repeated_observations_are_observations_repeated(observations):
    """The text that is scraped is that of the client's own histogram, which was told each of them."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    repeated = RepeatedHistogram("gap_seconds", "Between tokens.", buckets=INTER_TOKEN_BUCKETS_S, registry=ours)
    plain = Histogram("gap_seconds", "Between tokens.", buckets=INTER_TOKEN_BUCKETS_S, registry=theirs)
    for value, times in observations:
        repeated.observe(value, times)
        for _ in range(times):
            plain.observe(value)
    found, expected = exposition(ours), exposition(theirs)
    assert [line for line in found if "_sum" not in line] == [line for line in expected if "_sum" not in line]
    # A product instead of a sum: the last digits may differ.
    (ours_sum,), (theirs_sum,) = ([line for line in lines if "_sum" in line] for lines in (found, expected))
    assert abs(float(ours_sum.split()[1]) - float(theirs_sum.split()[1])) < 1e-9


def test_tokens_of_a_chunk_share_its_time():
    """Sixteen in 1.6 ms are sixteen of 0.1 ms each."""
    metrics = Metrics()
    metrics.later_tokens(16, 0.0016)
    lines = exposition(metrics.registry)
    assert 'huginn_llm_inter_token_seconds_bucket{le="0.0001"} 16.0' in lines
    assert "huginn_llm_inter_token_seconds_count 16.0" in lines
    assert "huginn_llm_generated_tokens_total 16.0" in lines
