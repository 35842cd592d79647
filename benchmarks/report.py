"""What a benchmark found: medians, spread and ratios, with the machine it found them on."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Report:
    """A table of rates.

    Args:
        title: what was measured.
        unit: of the rates.
        rates: of each contender, one figure a round; the rounds are interleaved.
        baseline: the contender that the others are compared with, round by round.
        notes: facts that belong to the figures.
    """

    title: str
    unit: str
    rates: Mapping[str, Sequence[float]]
    baseline: str
    notes: Sequence[str] = ()

    def ratio(self, name: str) -> float:
        """Return the median over the rounds of this contender's rate over the baseline's."""
        return median(a / b for a, b in zip(self.rates[name], self.rates[self.baseline], strict=True))

    def as_json(self) -> dict[str, Any]:
        """Return everything, for a file."""
        return {
            "title": self.title,
            "unit": self.unit,
            "rates": {name: list(rates) for name, rates in self.rates.items()},
            "ratios": {name: self.ratio(name) for name in self.rates},
            "baseline": self.baseline,
            "notes": list(self.notes),
            "machine": machine(),
        }

    def as_text(self) -> str:
        """Return a table in Markdown."""
        rows = [
            f"| {name} | {median(rates):,.0f} | {min(rates):,.0f} to {max(rates):,.0f} | {self.ratio(name):.2f} |"
            for name, rates in self.rates.items()
        ]
        head = [f"| {self.title} | {self.unit}, median | spread | ratio |", "| --- | --- | --- | --- |"]
        return "\n".join([*head, *rows, "", *self.notes, machine()]) + "\n"


def machine() -> str:
    """Return one line about this machine."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    versions = ", ".join(f"{name} {found}" for name in ("jax", "flax", "torch") if (found := _version(name)))
    return f"{cpu}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
