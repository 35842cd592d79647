"""What a load test says follows from when the tokens came."""

import json
import math
import xml.etree.ElementTree as ET

import pytest

from benchmarks.http_load import SLOTS, TOKENS, Load, LoadReport
from benchmarks.sse_client import StreamRecord


def test_waits_are_counted_from_the_arrivals():
    """One token after 100 ms, four more after 40, and a second stream that got one after 300."""
    one = StreamRecord(sent=10.0, arrivals=[(10.1, 1), (10.14, 4)])
    other = StreamRecord(sent=10.0, arrivals=[(10.3, 1)])
    load = Load.of([one, other])
    assert load.rate == pytest.approx(6 / 0.3)
    assert load.first_token[0] == pytest.approx(200)  # halfway between the two
    assert load.slowest_ms == pytest.approx(300)
    assert load.chunk_gap == pytest.approx((40, 40, 40))
    assert load.token_gap == pytest.approx((10, 10, 10))
    assert load.failures == ()


def test_a_chunk_counts_as_many_gaps_as_it_has_tokens():
    """Of 100 tokens after the first, 10 came one by one in 100 ms each: they are a tenth of the gaps, not half."""
    arrivals, now = [(0.0, 1)], 0.0
    for count, gap in [(9, 0.009)] * 10 + [(1, 0.1)] * 10:
        now += gap
        arrivals.append((now, count))
    load = Load.of([StreamRecord(sent=-1.0, arrivals=arrivals)])
    assert load.token_gap[0] == pytest.approx(1)
    assert load.token_gap[2] == pytest.approx(100)


def test_a_load_of_which_nothing_came_is_no_division_by_zero():
    """Everybody was refused."""
    load = Load.of([StreamRecord(sent=0.0, failure="HTTP/1.1 503 Service Unavailable")] * 2)
    assert load.rate == 0
    assert len(load.failures) == 2
    assert math.isnan(load.first_token[0])


def report() -> LoadReport:
    """Two rounds: one stream has 100 tokens/s and then 200, sixteen have 800, and 128 of them 800 as well."""

    def load(rate: float, slowest_s: float, failures: tuple[str, ...] = ()) -> Load:
        return Load(rate, (1, 2, 3), (1, 2, 3), (2, 3, 5), 1e3 * slowest_s, failures)

    fair_s = 128 * TOKENS / 800
    return LoadReport(
        {
            "huginn": {
                1: [load(100, 0.1), load(200, 0.1)],
                SLOTS: [load(800, 0.2)] * 2,
                128: [load(800, 0.5 * fair_s), load(800, 0.9 * fair_s, ("<refused>",))],
            }
        }
    )


def test_ratios_are_taken_round_by_round():
    """8 and 4 times the tokens of one stream, half and nine tenths of the fair share."""
    found = report()
    assert found.speed_up("huginn", 128) == 6
    assert found.fair_share("huginn", 128) == pytest.approx(0.7)
    assert found.evenness("huginn", 128) == 2.5


def test_all_three_forms_are_there():
    """The table says how many failed, and why; names are safe in the picture."""
    found = report()
    text = found.as_text()
    assert "| 128 | 800 | 800 to 800 | 6.00 |" in text
    assert "| 2.50 | 0.70 | 1 |" in text
    assert "Failed: <refused>." in text
    assert json.loads(json.dumps(found.as_json()))["over_one"]["huginn"]["128"] == 6
    assert ET.fromstring(found.as_svg()).tag.endswith("svg")
