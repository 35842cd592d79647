"""A report's arithmetic: medians, spread, and ratios taken round by round."""

import json
import xml.etree.ElementTree as ET

import pytest

from benchmarks.report import Report
from benchmarks.time_to_loss import LossOverTime

REPORT = Report(
    "decoding",
    "tokens/s",
    {"torch": [100.0, 400.0, 200.0], "huginn": [300.0, 800.0, 800.0]},
    "torch",
    ["float32"],
    [("huginn", "torch")],
)


def test_a_ratio_is_the_median_of_the_rounds_ratios():
    """Not the ratio of the medians (4): what slows a whole round down slows both in it."""
    assert REPORT.ratio("huginn") == 3.0
    assert REPORT.ratio("torch") == 1.0


def test_the_table_has_median_and_spread():
    """In the order in which the contenders were given."""
    lines = REPORT.as_text().splitlines()
    assert lines[2:4] == ["| torch | 200 | 100 to 400 | 1.00 |", "| huginn | 800 | 300 to 800 | 3.00 |"]
    assert "float32" in lines
    assert "huginn over torch: 3.00 (2.00 to 4.00)." in lines


def test_json_keeps_every_round():
    """Whoever doubts a median can make another."""
    everything = json.loads(json.dumps(REPORT.as_json()))
    assert everything["rates"] == REPORT.rates
    assert everything["ratios"] == {"torch": 1.0, "huginn": 3.0}
    assert everything["machine"]


def test_the_picture_says_the_same():
    """Median and ratio stand behind each bar."""
    texts = [element.text for element in ET.fromstring(REPORT.as_svg()).iter("{http://www.w3.org/2000/svg}text")]
    assert {"torch", "huginn", "200  (1.00x)", "800  (3.00x)", "float32"} <= set(texts)


def test_rounds_must_be_of_one_length():
    """A contender that missed a turn cannot be compared round by round."""
    with pytest.raises(ValueError, match="zip"):
        Report("", "", {"a": [1.0], "b": [1.0, 2.0]}, "a").ratio("b")


def test_a_target_that_was_not_reached_is_said_so():
    """In words, and never as a number of minutes."""
    curves = {"lstm": [(1.0, 2.0), (2.0, 1.5)], "mingru": [(1.0, 1.6)]}
    found = LossOverTime(curves)
    assert found.minutes("lstm") == 2.0
    assert "not reached" in found.as_text()
    assert ET.fromstring(found.as_svg()).tag.endswith("svg")
