"""What the web tiers add to a token: 200 streams through page and API, or /v1, against a model that costs nothing.

As where others are let in: every reader of the page has a session and every program a key, each request takes from a
quota in SQLite before its first token, and settles at its end.
"""

import argparse
import asyncio
import gc
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.charts import Bar, Panel, bar_chart, readable
from benchmarks.contender import take_turns
from benchmarks.paced_llm import TOKENS_PER_S
from benchmarks.report import machine, spread
from benchmarks.stamp_client import StampedStream, read_stamped, steady, stream_request
from benchmarks.web_tiers import Way, paced_llm, tiers_before

STREAMS, TOKENS = 200, 500
# So that beginning the streams, which costs far more than a token, is not what is measured.
BEGIN_EVERY_S = 0.02
WITHIN_S = 60.0
LIMIT_MS = 5.0

DIRECT = "from the model itself"

NOTES = (
    f"{STREAMS} streams of {TOKENS} tokens, {TOKENS_PER_S} tokens a second each, evenly spread: "
    f"{STREAMS * TOKENS_PER_S:,} tokens a second. One begins every {1e3 * BEGIN_EVERY_S:g} ms.",
    "Everybody is asked who they are: a session for each stream of the page, one key for /v1, accounts in SQLite.",
    "Delay: from the model's write to the client's read, by one clock; of the tokens that leave while all streams run.",
    "Model, client and both tiers are four processes of the same machine, and share its cores.",
    "CPU: of a tier, in seconds a second. Memory: what a tier has at the end of a load more than in the middle of it.",
    f"The aim is that the 99th percentile through both tiers is at most {LIMIT_MS:g} ms more than without them.",
)


class _Cores(NamedTuple):
    """Of all cores together, seconds since the machine's start, or a second of it."""

    idle: float
    stolen: float

    @classmethod
    def now(cls) -> "_Cores":
        # proc_stat(5): the fourth figure, with the fifth, which waits for a disk; and the eighth.
        ticks = [int(field) for field in Path("/proc/stat").read_text().partition("\n")[0].split()[1:]]
        return cls((ticks[3] + ticks[4]) / os.sysconf("SC_CLK_TCK"), ticks[7] / os.sysconf("SC_CLK_TCK"))

    def since(self, before: "_Cores", seconds: float) -> "_Cores":
        return _Cores((self.idle - before.idle) / seconds, (self.stolen - before.stolen) / seconds)


@dataclass(frozen=True)
class Passage:
    """What so many streams met on one way, once; milliseconds, CPU seconds a second, MB.

    Args:
        p50: half of the tokens came sooner.
        p99: all but a hundredth.
        worst: the last one.
        cpu: by tier.
        growth_mb: by tier, from the middle of the load to its end.
        failures: why streams failed, one entry each.
        idle: how many of the machine's cores had nothing to do.
        stolen: and how many of them the host had taken away (proc_stat(5)); whoever ran on them stood still meanwhile.
    """

    p50: float
    p99: float
    worst: float
    cpu: Mapping[str, float]
    growth_mb: Mapping[str, float]
    failures: tuple[str, ...]
    idle: float = 0.0
    stolen: float = 0.0

    def __str__(self) -> str:
        failed = f" and {len(self.failures)} failed" if self.failures else ""
        return f"p99 {self.p99:.2f} ms with {self.idle:.2f} cores idle, {self.stolen:.3f} stolen{failed}"

    @classmethod
    def of(
        cls,
        streams: Sequence[StampedStream],
        cpu: Mapping[str, float],
        growth_mb: Mapping[str, float],
        machine: "_Cores",
    ) -> "Passage":
        """Return the figures of streams that were read at the same time."""
        delays = sorted(delay / 1e3 for delay in steady(streams)) or [float("nan")]
        return cls(
            p50=delays[len(delays) // 2],
            p99=delays[len(delays) * 99 // 100],
            worst=delays[-1],
            cpu=cpu,
            growth_mb=growth_mb,
            failures=tuple(stream.failure for stream in streams if stream.failure is not None),
            idle=machine.idle,
            stolen=machine.stolen,
        )


@dataclass(frozen=True)
class WebLoadReport:
    """One `Passage` a round of each way."""

    passages: Mapping[str, Sequence[Passage]]

    def added(self, way: str, figure: str) -> list[float]:
        """Return how much more a figure is on this way than from the model itself, round by round."""
        pairs = zip(self.passages[way], self.passages[DIRECT], strict=True)
        return [getattr(through, figure) - getattr(direct, figure) for through, direct in pairs]

    @property
    def _ways(self) -> list[str]:
        return [way for way in self.passages if way != DIRECT]

    def as_text(self) -> str:
        """Return a table in Markdown."""
        lines = ["| delay of a token, ms | p50 | p99 | p99, spread | worst | failed |", "|" + " --- |" * 6]
        for name, passages in self.passages.items():
            p50, p99, worst = ([getattr(passage, figure) for passage in passages] for figure in FIGURES)
            failed = str(sum(len(passage.failures) for passage in passages))
            cells = [name, readable(median(p50)), readable(median(p99)), spread(p99), readable(max(worst)), failed]
            lines.append(f"| {' | '.join(cells)} |")
        for way in self._ways:
            p50, p99 = self.added(way, "p50"), self.added(way, "p99")
            cells = [f"added {way}", readable(median(p50)), readable(median(p99)), spread(p99), "", ""]
            lines.append(f"| {' | '.join(cells)} |")
        costs = [line for way in self._ways for line in self._costs(way, self.passages[way])]
        return "\n".join([*lines, "", *costs, *NOTES, machine()]) + "\n"

    @staticmethod
    def _costs(way: str, passages: Sequence[Passage]) -> Iterator[str]:
        for tier in passages[0].cpu:
            cpu = [passage.cpu[tier] for passage in passages]
            growth = [passage.growth_mb[tier] for passage in passages]
            yield (
                f"{way}, {tier}: {readable(median(cpu))} CPU ({spread(cpu)}), "
                f"{1e6 * median(cpu) / (STREAMS * TOKENS_PER_S):.0f} us a token; memory {median(growth):+.1f} MB "
                f"({min(growth):+.1f} to {max(growth):+.1f})."
            )
        idle, stolen = [passage.idle for passage in passages], [passage.stolen for passage in passages]
        yield (
            f"{way}, cores with nothing to do meanwhile: {median(idle):.2f} ({min(idle):.2f} to {max(idle):.2f}); "
            f"taken away by the host: {median(stolen):.3f} ({min(stolen):.3f} to {max(stolen):.3f})."
        )
        failures = sorted({reason for passage in passages for reason in passage.failures})
        if failures:
            yield f"{way}, failed: {'; '.join(failures[:5])}."

    def as_json(self) -> dict[str, Any]:
        """Return every passage."""
        return {
            "passages": {name: [asdict(passage) for passage in passages] for name, passages in self.passages.items()},
            "added_ms": {way: {figure: self.added(way, figure) for figure in FIGURES} for way in self._ways},
            "notes": NOTES,
            "machine": machine(),
        }

    def as_svg(self) -> str:
        """Return the 99th percentiles as bars."""
        bars = [
            Bar(name, figures, readable(median(figures)))
            for name, passages in self.passages.items()
            if (figures := [passage.p99 for passage in passages])
        ]
        title = f"{STREAMS} streams at {TOKENS_PER_S} tokens a second"
        return bar_chart(title, [Panel("delay of a token, ms, 99th percentile", bars)], [machine()])


FIGURES = ("p50", "p99", "worst")


def run(args: argparse.Namespace) -> WebLoadReport:
    """Measure all ways in turn."""
    with paced_llm() as llm_port, tiers_before(llm_port) as through:
        ways = {DIRECT: Way(llm_port, "/generate/stream"), **through}
        return WebLoadReport(take_turns({name: (_turns, (way,)) for name, way in ways.items()}, args.rounds))


def _turns(way: Way) -> Generator[Any, None, None]:
    yield None
    while True:
        yield passage(way, STREAMS, TOKENS)


def passage(way: Way, streams: int, tokens: int) -> Passage:
    """Return what so many streams meet on this way, and what it costs the tiers."""
    import uvloop

    fields = {"prompt": "a", "max_tokens": tokens, **way.fields}
    requests = [stream_request(way.path, fields, way.headers()) for _ in range(streams)]
    pids = way.pids
    cpu: dict[str, float] = {}
    growth: dict[str, float] = {}

    async def watch() -> _Cores:
        # From when all streams run, to just before the first of them ends.
        begin_s, steady_s = streams * BEGIN_EVERY_S, tokens / TOKENS_PER_S - streams * BEGIN_EVERY_S
        await asyncio.sleep(begin_s + steady_s / 2)
        before, cores = {tier: (_cpu_s(pid), memory_mb(pid)) for tier, pid in pids.items()}, _Cores.now()
        watched_s = steady_s / 2 * 0.9
        await asyncio.sleep(watched_s)
        for tier, (cpu_s, resident_mb) in before.items():
            cpu[tier] = (_cpu_s(pids[tier]) - cpu_s) / watched_s
            growth[tier] = memory_mb(pids[tier]) - resident_mb
        return _Cores.now().since(cores, watched_s)

    async def measure() -> tuple[list[StampedStream], _Cores]:
        watching = asyncio.create_task(watch())
        read = await read_stamped(way.port, requests, tokens, gap_s=BEGIN_EVERY_S, within_s=WITHIN_S)
        return read, await watching

    # The client's own pauses are not the servers'.
    gc.collect()
    gc.disable()
    try:
        read, cores = uvloop.run(measure())
        return Passage.of(read, cpu, growth, cores)
    finally:
        gc.enable()


def _cpu_s(pid: int) -> float:
    # After the command's name, which may hold spaces: utime and stime are fields 14 and 15 (proc_pid_stat(5)).
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    """Return the memory that a process has of the machine."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
