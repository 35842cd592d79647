"""Charts are pictures that a browser can read, and say what they were given."""

import xml.etree.ElementTree as ET

import pytest

from benchmarks.charts import Bar, Panel, bar_chart, line_chart, readable

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


def boxes(svg: str, kind: str) -> list[ET.Element]:
    return [element for element in ET.fromstring(svg).iter(f"{SVG}rect") if element.get("class") == kind]


def test_names_are_shown_as_they_are():
    """Markup in a name is text, not markup."""
    hostile = '<script>alert("1")</script> & </svg>'
    svg = bar_chart(hostile, [Panel(hostile, [Bar(hostile, [1.0], hostile)])], [hostile])
    assert texts(svg) == [hostile] * 5
    svg = line_chart(hostile, (hostile, hostile), {hostile: [(0, 1), (1, 2)]}, [hostile])
    assert texts(svg).count(hostile) == 5


def test_a_bar_is_as_long_as_its_median():
    """Lengths within a panel are as the medians; another panel has a scale of its own."""
    one = Panel("one", [Bar("a", [10.0, 30.0, 20.0], ""), Bar("b", [5.0, 4.0, 6.0], "")])
    two = Panel("two", [Bar("c", [3000.0], "")])
    a, b, c = (float(box.get("width", "")) for box in boxes(bar_chart("", [one, two]), "bar"))
    assert a / b == pytest.approx(20 / 5, rel=0.01)
    # c is the longest figure of its panel, as 30 is in the first.
    assert c / a == pytest.approx(30 / 20, rel=0.01)


def test_everything_lies_on_the_sheet():
    """Long names and many bars make the picture larger."""
    bars = [Bar("a rather long name of a contender", [n + 1.0], "12,345 tokens a second") for n in range(40)]
    svg = bar_chart("t", [Panel("p", bars)], ["a note " * 20])
    width, height = (float(ET.fromstring(svg).get(name, "")) for name in ("width", "height"))
    for element in ET.fromstring(svg).iter(f"{SVG}text"):
        x, room = float(element.get("x", "")), 6.5 * len(element.text or "")
        left, right = (x - room, x) if element.get("text-anchor") == "end" else (x, x + room)
        assert left >= 0
        assert right <= width
        assert float(element.get("y", "")) <= height


@pytest.mark.parametrize("figures", [[0.0], [1e-9, 2e-9], [1e12]])
def test_no_scale_is_too_small_or_too_large(figures):
    """Nothing divides by zero."""
    assert len(boxes(bar_chart("t", [Panel("p", [Bar("a", figures, "")])]), "bar")) == 1
    assert "polyline" in line_chart("t", ("x", "y"), {"a": [(figure, figure) for figure in figures]})


@pytest.mark.parametrize(
    ("value", "text"),
    [(9258.3, "9,258"), (531.2, "531"), (12.34, "12.3"), (3.456, "3.46"), (0.949, "0.95"), (-12.34, "-12.3")],
)
def test_figures_have_three_digits(value, text):
    """More would be noise."""
    assert readable(value) == text
