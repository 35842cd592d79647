"""Charts as SVG, written by hand: no library draws them, and they are readable on a light page and on a dark one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from xml.sax.saxutils import escape

# Greys and one blue that have contrast on white and on black; a page that says which it is gets better ones.
STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #57606a }
.title { font-size: 15px; font-weight: 600 }
.label, .title { fill: #24292f }
.bar { fill: #8fa9c4 } .line { fill: none; stroke-width: 2 }
.spread, .axis { stroke: #57606a; fill: none }
.grid { stroke: #57606a; stroke-opacity: 0.2 }
@media (prefers-color-scheme: dark) {
  text { fill: #9da7b3 } .label, .title { fill: #e6edf3 }
  .bar { fill: #3f6187 } .spread, .axis { stroke: #9da7b3 } .grid { stroke: #9da7b3 }
}"""
COLOURS = ("#3b82c4", "#c8553d", "#5a9a57", "#9a6fb0")

LETTER = 7.2
"""Width of a letter, in pixels: generous, for the reader's font is not known."""
ROW, BAR, MARGIN = 26, 14, 16
BARS_WIDTH = 360


@dataclass(frozen=True)
class Bar:
    """One contender's bar: as long as the median of its figures, with a whisker from the least to the greatest.

    Args:
        label: who it is.
        figures: one a round.
        text: what stands behind the bar.
    """

    label: str
    figures: Sequence[float]
    text: str


@dataclass(frozen=True)
class Panel:
    """Bars that share a scale, which begins at 0."""

    title: str
    bars: Sequence[Bar]


def bar_chart(title: str, panels: Sequence[Panel], notes: Sequence[str] = ()) -> str:
    """Return the panels below each other, with the notes at the foot."""
    labels = max((len(bar.label) for panel in panels for bar in panel.bars), default=0) * LETTER
    texts = max((len(bar.text) for panel in panels for bar in panel.bars), default=0) * LETTER
    longest = max(len(line) for line in (title, *notes, *(panel.title for panel in panels))) * LETTER
    width = max(MARGIN + labels + 10 + BARS_WIDTH + 10 + texts, MARGIN + longest) + MARGIN
    drawing = [_text(MARGIN, 26, title, "title")]
    top = 40.0
    for panel in panels:
        drawing.append(_text(MARGIN, top + 16, panel.title))
        top += ROW
        drawing += _bars(panel.bars, MARGIN + labels + 10, top)
        top += len(panel.bars) * ROW + 8
    return _document(width, top, drawing, notes)


def _bars(bars: Sequence[Bar], left: float, top: float) -> list[str]:
    most = max((max(bar.figures) for bar in bars), default=0) or 1.0
    scale = BARS_WIDTH / most
    drawing = [f'<path class="axis" d="M{left:.1f} {top:.1f}v{len(bars) * ROW}"/>']
    for number, bar in enumerate(bars):
        y = top + number * ROW + ROW / 2
        low, middle, high = (left + scale * f(bar.figures) for f in (min, median, max))
        drawing += [
            _text(left - 10, y + 4.5, bar.label, "label", anchor="end"),
            f'<rect class="bar" x="{left:.1f}" y="{y - BAR / 2:.1f}" width="{middle - left:.1f}" height="{BAR}"/>',
            f'<path class="spread" d="M{low:.1f} {y - 4:.1f}v8m0 -4H{high:.1f}m0 -4v8"/>',
            _text(high + 8, y + 4.5, bar.text),
        ]
    return drawing


def line_chart(
    title: str,
    axes: tuple[str, str],
    curves: Mapping[str, Sequence[tuple[float, float]]],
    notes: Sequence[str] = (),
) -> str:
    """Return the curves over one pair of axes, named by ``axes``: across, then up."""
    width, height, left, top = 560.0, 300.0, 70.0, 66.0
    xs = [x for curve in curves.values() for x, _ in curve]
    ys = [y for curve in curves.values() for _, y in curve]
    (x_low, x_high), (y_low, y_high) = (_span(values) for values in (xs, ys))
    drawing = [_text(MARGIN, 26, title, "title"), _text(left - 8, top - 14, axes[1])]
    for step in range(5):
        y = top + height * step / 4
        value = y_high - (y_high - y_low) * step / 4
        drawing += [
            f'<path class="grid" d="M{left:.1f} {y:.1f}h{width:.1f}"/>',
            _text(left - 8, y + 4.5, readable(value), anchor="end"),
        ]
        x = left + width * step / 4
        value = x_low + (x_high - x_low) * step / 4
        drawing.append(_text(x, top + height + 20, readable(value), anchor="middle"))
    drawing.append(_text(left + width, top + height + 40, axes[0], anchor="end"))
    for number, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(
            f"{left + width * (x - x_low) / (x_high - x_low):.1f},{top + height * (y_high - y) / (y_high - y_low):.1f}"
            for x, y in curve
        )
        key_x, key_y = left + width - 120, top + 12 + 20 * number
        drawing += [
            f'<polyline class="line" stroke="{colour}" points="{points}"/>',
            f'<path class="line" stroke="{colour}" d="M{key_x:.1f} {key_y - 4:.1f}h18"/>',
            _text(key_x + 24, key_y, name, "label"),
        ]
    longest = max(len(line) for line in (title, *notes)) * LETTER
    return _document(max(left + width, MARGIN + longest) + MARGIN, top + height + 48, drawing, notes)


def readable(value: float) -> str:
    """Return a figure with three digits that mean something: 9,258 or 12.3 or 0.95."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low, high) if high > low else (low, low + 1.0)


def _document(width: float, top: float, drawing: Sequence[str], notes: Sequence[str]) -> str:
    feet = [_text(MARGIN, top + 20 + 18 * number, note) for number, note in enumerate(notes)]
    height = top + 18 * len(notes) + MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">'
    )
    return "\n".join([head, f"<style>{escape(STYLE)}</style>", *drawing, *feet, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    extra = (f' class="{kind}"' if kind else "") + (f' text-anchor="{anchor}"' if anchor != "start" else "")
    return f'<text x="{x:.1f}" y="{y:.1f}"{extra}>{escape(text)}</text>'
