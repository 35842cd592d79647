"""Microseconds that HTTP, the event stream and the engine's loop add to each token."""

import argparse
import itertools
import os
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.charts import Bar, Panel, bar_chart, readable
from benchmarks.contender import take_turns
from benchmarks.costless import CostlessPrograms
from benchmarks.report import machine, spread
from benchmarks.server import AS_SERVED, app_server, huginn_server
from benchmarks.sse_client import read_streams
from functions.llm.checkpoints.checkpoint import load_checkpoint
from functions.llm.inference.programs import MAX_CHUNK, Programs, batch_sizes, program_specs
from functions.llm.inference.served_model import ServedModel

BUNDLED = Path("ckpts/muninn-char")
STREAMS = (1, 16)
TOKENS = 2048
WITHIN_S = 60.0
DIRECT_S = 0.5
TEMPERATURE, TOP_K = 0.8, 40

NOTES = (
    f"Each stream is {TOKENS:,} tokens long, up to {MAX_CHUNK} in a chunk; a load's time is divided by all its tokens.",
    "Drawn directly: the same programs in a loop, with nothing around them.",
    "Of a model that costs nothing all of the time is overhead.",
    "Processor: the server's process, on all cores.",
)


@dataclass(frozen=True)
class Cost:
    """Microseconds a token.

    Args:
        wall: by the clock.
        processor: of the process that drew or served it.
    """

    wall: float
    processor: float


Turns = Generator[dict[int, Cost], None, None]


@dataclass(frozen=True)
class OverheadReport:
    """What tokens cost drawn directly, and streamed; by model and number of streams, one `Cost` a round."""

    direct: Mapping[str, Mapping[int, Sequence[Cost]]]
    streamed: Mapping[str, Mapping[int, Sequence[Cost]]]

    def overheads(self, model: str, streams: int) -> list[float]:
        """Return microseconds a token that streaming adds, round by round."""
        pairs = zip(self.streamed[model][streams], self.direct[model][streams], strict=True)
        return [streamed.wall - direct.wall for streamed, direct in pairs]

    def as_text(self) -> str:
        """Return a table in Markdown."""
        head = [
            "| microseconds a token | streams | drawn directly | streamed over HTTP | overhead | spread | processor |",
            "|" + " --- |" * 7,
        ]
        rows = []
        for model, streams in self._cases():
            direct, streamed = self.direct[model][streams], self.streamed[model][streams]
            overheads = self.overheads(model, streams)
            cells = [
                model,
                str(streams),
                readable(median(cost.wall for cost in direct)),
                readable(median(cost.wall for cost in streamed)),
                readable(median(overheads)),
                spread(overheads),
                readable(median(cost.processor for cost in streamed)),
            ]
            rows.append(f"| {' | '.join(cells)} |")
        return "\n".join([*head, *rows, "", *NOTES, machine()]) + "\n"

    def as_json(self) -> dict[str, Any]:
        """Return every turn."""
        return {
            "cases": [
                {
                    "model": model,
                    "streams": streams,
                    "direct": [asdict(cost) for cost in self.direct[model][streams]],
                    "streamed": [asdict(cost) for cost in self.streamed[model][streams]],
                    "overheads_us": self.overheads(model, streams),
                }
                for model, streams in self._cases()
            ],
            "notes": NOTES,
            "machine": machine(),
        }

    def as_svg(self) -> str:
        """Return the overheads as bars."""
        bars = [
            Bar(f"{model}, {streams} stream{'s' * (streams > 1)}", overheads, readable(median(overheads)))
            for model, streams in self._cases()
            for overheads in [[max(overhead, 0.0) for overhead in self.overheads(model, streams)]]
        ]
        return bar_chart("what streaming adds to a token", [Panel("microseconds a token", bars)], [machine()])

    def _cases(self) -> list[tuple[str, int]]:
        return [(model, streams) for model in self.direct for streams in self.direct[model]]


def run(args: argparse.Namespace) -> OverheadReport:
    """Measure a model that costs nothing and the bundled one, drawn directly and streamed in turn."""
    models = {"a model that costs nothing": True, "muninn-char": False}
    turns = take_turns(
        {
            f"{how.__name__}, {model}": (how, (costless,))
            for model, costless in models.items()
            for how in (drawn, streamed)
        },
        args.rounds,
    )

    def of(how: str) -> dict[str, dict[int, list[Cost]]]:
        return {model: {n: [turn[n] for turn in turns[f"{how}, {model}"]] for n in STREAMS} for model in models}

    return OverheadReport(direct=of("drawn"), streamed=of("streamed"))


def drawn(costless: bool) -> Turns:
    """Draw from the programs that serving calls, with nothing around them but the reading of the tokens."""
    checkpoint = load_checkpoint(BUNDLED)
    programs = CostlessPrograms(checkpoint.model) if costless else ServedModel.of(checkpoint).programs
    draws = {streams: _draws(programs, streams) for streams in STREAMS}
    for draw in draws.values():
        next(draw)
    yield {}
    while True:
        yield {streams: _cost_of(draw) for streams, draw in draws.items()}


def _draws(programs: Programs, streams: int) -> Generator[int, None, None]:
    size = next(size for size in batch_sizes(programs.model) if size >= streams)
    _, texts, samplers, forced, counts, _ = program_specs(programs.model)[f"decode-{size}"].args
    samplers = samplers._replace(
        temperature=np.full(size, TEMPERATURE, np.float32), top_k=np.full(size, TOP_K, np.int32)
    )
    counts = np.where(np.arange(size) < streams, MAX_CHUNK, 0).astype(counts.dtype)
    while True:
        made, texts = programs.decode(texts, samplers, forced, counts, wants_top=False)
        yield len(np.asarray(made.ids)[:streams].reshape(-1).tolist())


def _cost_of(draw: Generator[int, None, None]) -> Cost:
    started, processor = time.perf_counter(), time.process_time()
    tokens = 0
    for made in draw:
        tokens += made
        if (seconds := time.perf_counter() - started) >= DIRECT_S:
            return Cost(1e6 * seconds / tokens, 1e6 * (time.process_time() - processor) / tokens)
    raise AssertionError


def streamed(costless: bool) -> Turns:
    """Read event streams from a server."""
    server: AbstractContextManager[tuple[int, int]] = huginn_server(BUNDLED)
    if costless:
        settings = {"CKPT_PATH": str(BUNDLED), "METRICS_PORT": "0"}
        server = app_server("benchmarks.costless:costless_app", "/readyz", settings, "--factory", *AS_SERVED)
    with server as (port, process):
        seeds = itertools.count()

        def cost(streams: int) -> Cost:
            bodies = [_body(next(seeds)) for _ in range(streams)]
            before = _processor_s(process)
            records = read_streams(port, "/generate/stream", bodies, WITHIN_S)
            processor = _processor_s(process) - before
            if failures := [record.failure for record in records if record.failure]:
                raise RuntimeError(f"{len(failures)} of {streams} streams failed: {failures[0]}")
            tokens = sum(record.tokens for record in records)
            wall = max(record.arrivals[-1][0] for record in records) - min(record.sent for record in records)
            return Cost(1e6 * wall / tokens, 1e6 * processor / tokens)

        for streams in STREAMS:
            cost(streams)
        yield {}
        while True:
            yield {streams: cost(streams) for streams in STREAMS}


def _body(seed: int) -> dict[str, Any]:
    options = {"temperature": TEMPERATURE, "top_k": TOP_K, "ignore_eos": True}
    return {"prompt": "ROMEO:", "max_tokens": TOKENS, "seed": seed, **options}


def _processor_s(process: int) -> float:
    """Return what a process has used so far, user and system, on all cores; not a number where /proc is missing."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
