"""What functions/runtime takes to get a chunk out, against plain uvicorn: the same app, the same reader, in turn."""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmarks.charts import Bar, Panel, bar_chart, readable
from benchmarks.contender import take_turns
from benchmarks.report import machine, spread
from benchmarks.runtime_peer import Record, ask_server, runtime_function
from benchmarks.server import app_server

APP = "benchmarks.chunks_app"
FIRSTS, PACED, BURST = 50, 500, 20_000
PACE_US = 2000
LIMIT_US = 100
UVICORN, RUNTIME = "uvicorn", "functions/runtime"

NOTES = (
    f"First chunk: from the request, or from Lambda's handing over the event, to the first byte of the body; median of "
    f"{FIRSTS}.",
    f"Delay: from the app's `send` to the reader, median of {PACED} chunks {PACE_US // 1000} ms apart.",
    f"Back to back: {BURST:,} chunks sent as fast as they go, divided by their number.",
    f"The aim is an overhead of at most {LIMIT_US} microseconds a chunk.",
)


@dataclass(frozen=True)
class Turn:
    """Microseconds, by one contender in one round.

    Args:
        first: to the first chunk.
        delay: of a chunk among others that come now and then.
        burst: a chunk when they are sent back to back.
    """

    first: float
    delay: float
    burst: float


FIGURES = {"first": "first chunk", "delay": "delay of a chunk", "burst": "a chunk back to back"}


@dataclass(frozen=True)
class RuntimeReport:
    """One `Turn` a round of each contender."""

    turns: Mapping[str, Sequence[Turn]]

    def figures(self, name: str, figure: str) -> list[float]:
        """Return one figure of a contender, round by round."""
        return [getattr(turn, figure) for turn in self.turns[name]]

    def overheads(self, figure: str) -> list[float]:
        """Return microseconds that the runtime takes more than uvicorn, round by round."""
        pairs = zip(self.figures(RUNTIME, figure), self.figures(UVICORN, figure), strict=True)
        return [ours - theirs for ours, theirs in pairs]

    def as_text(self) -> str:
        """Return a table in Markdown."""
        head = ["microseconds", *(cell for label in FIGURES.values() for cell in (label, "spread"))]
        rows = [
            [name, *(cell for figure in FIGURES for cell in _cells(self.figures(name, figure)))] for name in self.turns
        ]
        rows.append(["overhead", *(cell for figure in FIGURES for cell in _cells(self.overheads(figure)))])
        lines = [head, ["---"] * len(head), *rows]
        return "\n".join([*(f"| {' | '.join(cells)} |" for cells in lines), "", *NOTES, machine()]) + "\n"

    def as_json(self) -> dict[str, Any]:
        """Return every turn."""
        return {
            "turns": {name: [asdict(turn) for turn in turns] for name, turns in self.turns.items()},
            "overheads_us": {figure: self.overheads(figure) for figure in FIGURES},
            "notes": NOTES,
            "machine": machine(),
        }

    def as_svg(self) -> str:
        """Return a panel of bars for each figure."""
        panels = [
            Panel(
                f"{label}, microseconds",
                [
                    Bar(name, figures, readable(median(figures)))
                    for name in self.turns
                    for figures in [self.figures(name, figure)]
                ],
            )
            for figure, label in FIGURES.items()
        ]
        return bar_chart("functions/runtime against uvicorn", panels, [machine()])


def run(args: argparse.Namespace) -> RuntimeReport:
    """Measure both in turn."""
    turns = take_turns({UVICORN: (by_uvicorn, ()), RUNTIME: (by_runtime, ())}, args.rounds)
    return RuntimeReport(turns)


def by_uvicorn() -> Generator[Turn | None, None, None]:
    """Read from uvicorn, with uvloop and httptools as the tiers run it."""
    with app_server(f"{APP}:app", "/", {}) as (port, _), asyncio.Runner() as runner:
        runner.run(_turn(lambda query: ask_server(port, query)))
        yield None
        while True:
            yield runner.run(_turn(lambda query: ask_server(port, query)))


def by_runtime() -> Generator[Turn | None, None, None]:
    """Read what functions/runtime posts."""
    with asyncio.Runner() as runner:
        function = runtime_function(f"{APP}.app")
        asked, _ = runner.run(function.__aenter__())
        try:
            runner.run(_turn(asked.ask))
            yield None
            while True:
                yield runner.run(_turn(asked.ask))
        finally:
            runner.run(function.__aexit__(None, None, None))


async def _turn(ask: Callable[[str], Awaitable[Record]]) -> Turn:
    firsts = []
    for _ in range(FIRSTS):
        record = await ask("count=1")
        [(_, came)] = record.chunks()
        firsts.append(came - record.asked)
    paced = (await ask(f"count={PACED}&pace_us={PACE_US}")).chunks()
    burst = (await ask(f"count={BURST}")).chunks()
    assert (len(paced), len(burst)) == (PACED, BURST)
    return Turn(
        median(firsts) / 1000,
        median(came - sent for sent, came in paced) / 1000,
        (burst[-1][1] - burst[0][1]) / (BURST - 1) / 1000,
    )


def _cells(figures: Sequence[float]) -> tuple[str, str]:
    return readable(median(figures)), spread(figures)
