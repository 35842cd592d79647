"""What a deployment costs: the arithmetic, against sums done by hand."""

import dataclasses

import pytest

from functions.backend.domain import usage_total
from local.deploy import prices
from local.deploy.costs import Deployment, Traffic, costs_per_million_tokens, idle_costs, table, total

NOTHING = Deployment(1024, 512, 128, 0, 0, 0, 0, 0, 0, 0)
TRAFFIC = Traffic(tokens_per_s=1000, tokens_per_request=200, overhead_s=0, cold_share=0)


def test_what_is_not_there_costs_nothing():
    """Functions that nobody calls are free; all that is paid for is counted."""
    assert total(idle_costs(NOTHING)) == 0


def test_a_snapshot_for_a_month():
    """730 hours of 1 GB at 0.0000015046 dollars a GB-second."""
    assert total(idle_costs(dataclasses.replace(NOTHING, snapshots=1))) == pytest.approx(3.9541, abs=1e-4)


@pytest.mark.parametrize(
    ("field", "count", "usd"),
    [
        ("alarms", 14, 1.40),
        ("metrics", 3, 0.90),
        ("queues", 1, 5 * 3 * 60 * 730 * 0.40e-6),
        ("image_bytes", 2**30, 0.10),
        ("stored_bytes", 2**31, 0.046),
        ("secrets", 2, 0.80),
        # Two seconds of 1 GB and of an eighth, and two requests.
        ("canary_runs_per_month", 1000, 2000 * 1.125 * 0.0000166667 + 2000 * 0.20e-6),
    ],
)
def test_what_stays_by_the_month(field, count, usd):
    """Each thing by itself, its price times its number."""
    assert total(idle_costs(dataclasses.replace(NOTHING, **{field: count}))) == pytest.approx(usd, rel=1e-9)


def test_a_million_tokens():
    """1,000 seconds of 1 GB for the model and half for the backend that waits, and 5,000 requests."""
    costs = costs_per_million_tokens(NOTHING, TRAFFIC)
    assert costs["the model's computing"] == pytest.approx(0.0166667)
    assert costs["the backend's waiting"] == pytest.approx(0.0083333, abs=1e-6)
    assert costs["quotas"] == 0
    with_keys = costs_per_million_tokens(dataclasses.replace(NOTHING, tables=1), TRAFFIC)
    assert with_keys["quotas"] == pytest.approx(2 * 5000 * 0.625e-6)
    # 200 tokens in 100 s: three renewals.
    slow = dataclasses.replace(TRAFFIC, tokens_per_s=2)
    with_keys = costs_per_million_tokens(dataclasses.replace(NOTHING, tables=1), slow)
    assert with_keys["quotas"] == pytest.approx(5 * 5000 * 0.625e-6)
    assert costs["requests"] == pytest.approx(5000 * (2 * 0.20e-6 + 1e-6))
    assert costs["data to the readers"] == pytest.approx(90e6 / 2**30 * 0.085)
    assert costs["streaming beyond 6 MB"] == costs["restoring snapshots"] == 0


def test_a_faster_model_is_cheaper():
    """Only in what is paid by the second."""
    faster = dataclasses.replace(TRAFFIC, tokens_per_s=2000)
    before, after = costs_per_million_tokens(NOTHING, TRAFFIC), costs_per_million_tokens(NOTHING, faster)
    halved = {name for name in before if after[name] == pytest.approx(before[name] / 2) and before[name]}
    assert halved == {"the model's computing", "the backend's waiting"}


def test_long_answers_pay_for_streaming():
    """Only what goes beyond 6 MB in one response, once from each of the two functions."""
    long = dataclasses.replace(TRAFFIC, tokens_per_request=100_000, bytes_per_token=100)
    beyond = 10 * (10_000_000 - 6 * 2**20)
    expected = pytest.approx(2 * beyond / 2**30 * 0.008)
    assert costs_per_million_tokens(NOTHING, long)["streaming beyond 6 MB"] == expected


def test_restoring_is_paid_only_with_snapshots():
    """By the share of the requests that come to no running environment."""
    cold = dataclasses.replace(TRAFFIC, cold_share=0.1)
    snapshot = dataclasses.replace(NOTHING, snapshots=1)
    assert costs_per_million_tokens(NOTHING, cold)["restoring snapshots"] == 0
    assert costs_per_million_tokens(snapshot, cold)["restoring snapshots"] == pytest.approx(500 * 0.0001397998)


def test_the_table_for_a_person_has_what_matters():
    """The sum first, then the dearest; what is no tenth of a cent is in the sum alone."""
    lines = table("all", {"little": 0.0004, "some": 0.5, "most": 2.0})
    assert [line.split() for line in lines] == [["all", "$2.500"], ["most", "$2.000"], ["some", "$0.500"]]


@pytest.mark.parametrize("wrong", [{"llm_mb": 0}, {"alarms": -1}])
def test_no_deployment_is_refused(wrong):
    """A mistake in reading the template does not become a price."""
    with pytest.raises(ValueError, match="nothing"):
        dataclasses.replace(NOTHING, **wrong)


def test_every_price_names_its_page():
    """And its unit; the table has a day and a region."""
    assert all(price.usd > 0 and price.unit and "aws.amazon.com" in price.source for price in prices.TABLE.values())
    used = {value for name, value in vars(prices).items() if isinstance(value, prices.Price)}
    assert used == set(prices.TABLE.values())
    assert prices.AS_OF[:2] == "20"


def test_what_a_request_is_said_to_cost_is_of_the_same_table():
    """The backend shares no code with this, and has the price again."""
    assert prices.LAMBDA_COMPUTE.usd == usage_total.USD_PER_GB_SECOND
