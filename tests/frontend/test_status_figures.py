"""What is computed from the API's counts."""

from copy import deepcopy
from statistics import quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.frontend.status_figures import StatusFigures, quantile
from tests.frontend.fake_backend import STATUS

BOUNDS = (0.001, 0.01, 0.1, 1.0)


def counts_of(values: list[float]) -> list[int]:
    return [*(sum(value <= bound for value in values) for bound in BOUNDS), len(values)]


@given(st.lists(st.floats(1e-4, 5.0), min_size=1), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_lies_in_the_bucket_of_the_measurement(values, share):
    """As near as a histogram can say it."""
    found = quantile(BOUNDS, counts_of(values), share)
    rank = -int(-share * len(values) // 1)  # rounded up
    exact = min(sorted(values)[max(rank, 1) - 1], BOUNDS[-1])
    low = max((bound for bound in (0.0, *BOUNDS) if bound < exact), default=0.0)
    high = min((bound for bound in BOUNDS if bound >= exact), default=BOUNDS[-1])
    assert low <= found <= high * (1 + 1e-12)


def test_within_a_bucket_the_measurements_lie_evenly():
    """So that of 1000 even ones the quantiles are exact."""
    values = [n / 1000 for n in range(1, 1001)]
    cuts = quantiles(values, n=100)
    for share, exact in [(0.5, cuts[49]), (0.95, cuts[94])]:
        assert quantile((1.0,), [1000, 1000], share) == pytest.approx(exact, abs=2e-3)


def test_the_figures_of_an_answer():
    """Each from its counts."""
    figures = StatusFigures.read(STATUS)
    model = figures.model
    assert (figures.models, figures.instances, figures.open_streams) == (("fake-raven",), 1, 3)
    assert figures.errors == (("queue_full", 3),)
    assert model.first_token_s == (pytest.approx(0.01), pytest.approx(0.1), pytest.approx(0.82))
    assert model.cache_share == pytest.approx(0.3)
    assert model.cpu_s_per_1000 == pytest.approx(2.0)
    assert model.joules_per_1000 == pytest.approx(15.0)
    assert (model.active, model.slots, model.waiting, model.max_queue) == (3, 16, 2, 64)


def test_what_has_not_happened_has_no_figure():
    """A service that has just begun divides nothing by zero; one that is away has none at all."""
    body = deepcopy(STATUS)
    body["llm"].update(tokens_generated=0, cache_hits=0, cache_misses=0)
    body["llm"]["time_to_first_token_s"]["counts"] = [0, 0, 0, 0]
    model = StatusFigures.read(body).model
    assert (model.cpu_s_per_1000, model.joules_per_1000, model.cache_share) == (None, None, None)
    assert model.first_token_s == (None, None, None)
    assert StatusFigures.read({**STATUS, "llm": None}).model is None


def test_a_histogram_that_is_none_is_refused():
    """One count more than bounds."""
    body = deepcopy(STATUS)
    body["llm"]["inter_token_s"]["counts"].pop()
    with pytest.raises(ValueError, match="2 bounds"):
        StatusFigures.read(body)
