"""What a benchmark found: medians, spread and ratios, with the machine it found them on."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from benchmarks.charts import Bar, Panel, bar_chart, readable


class Findings(Protocol):
    """What a benchmark returns: the same figures in three forms."""

    def as_text(self) -> str:
        """Return tables in Markdown."""

    def as_json(self) -> dict[str, Any]:
        """Return every figure of every round."""

    def as_svg(self) -> str:
        """Return a picture."""


@dataclass(frozen=True)
class Report:
    """A table of one figure for each contender: a rate, a time, whatever ``unit`` says.

    Args:
        title: what was measured.
        unit: of the figures.
        rates: of each contender, one figure a round; the rounds are interleaved.
        baseline: the contender that the others are compared with, round by round.
        notes: facts that belong to the figures.
        comparisons: pairs of contenders whose ratio is a line of its own.
    """

    title: str
    unit: str
    rates: Mapping[str, Sequence[float]]
    baseline: str
    notes: Sequence[str] = ()
    comparisons: Sequence[tuple[str, str]] = ()

    def ratio(self, name: str) -> float:
        """Return the median over the rounds of this contender's figure over the baseline's."""
        return median(self.ratios(name, self.baseline))

    def ratios(self, name: str, other: str) -> list[float]:
        """Return one contender's figure over another's, round by round."""
        return [a / b for a, b in zip(self.rates[name], self.rates[other], strict=True)]

    def as_json(self) -> dict[str, Any]:
        """Return everything, for a file."""
        return {
            "title": self.title,
            "unit": self.unit,
            "rates": {name: list(rates) for name, rates in self.rates.items()},
            "ratios": {name: self.ratio(name) for name in self.rates},
            "baseline": self.baseline,
            "comparisons": [{"of": a, "over": b, "ratios": self.ratios(a, b)} for a, b in self.comparisons],
            "notes": list(self.notes),
            "machine": machine(),
        }

    def as_text(self) -> str:
        """Return a table in Markdown."""
        rows = [
            f"| {name} | {readable(median(rates))} | {spread(rates)} | {self.ratio(name):.2f} |"
            for name, rates in self.rates.items()
        ]
        head = [f"| {self.title} | {self.unit}, median | spread | ratio |", "| --- | --- | --- | --- |"]
        return "\n".join([*head, *rows, "", *self._compared(), *self.notes, machine()]) + "\n"

    def as_svg(self) -> str:
        """Return the table as bars, with the spread on them and the ratio behind them."""
        bars = [
            Bar(name, rates, f"{readable(median(rates))}  ({self.ratio(name):.2f}x)")
            for name, rates in self.rates.items()
        ]
        return bar_chart(self.title, [Panel(self.unit, bars)], [*self._compared(), *self.notes, machine()])

    def _compared(self) -> list[str]:
        return [
            f"{a} over {b}: {readable(median(ratios))} ({spread(ratios)})."
            for a, b in self.comparisons
            if (ratios := self.ratios(a, b))
        ]


def spread(figures: Sequence[float]) -> str:
    """Return the least and the greatest of them."""
    return f"{readable(min(figures))} to {readable(max(figures))}"


def machine() -> str:
    """Return one line about this machine."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    versions = ", ".join(
        f"{name} {found}" for name in ("jax", "flax", "torch", "onnxruntime", "xllamacpp") if (found := _version(name))
    )
    return f"{cpu}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
