"""A load test over HTTP: many streams at once, and how long each of them waits."""

import argparse
import itertools
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np

from benchmarks.charts import Bar, Panel, bar_chart, readable
from benchmarks.contender import take_turns
from benchmarks.report import machine, spread
from benchmarks.server import app_server, huginn_server
from benchmarks.sse_client import StreamRecord, read_streams
from functions.llm.checkpoints.checkpoint import read_config, save_checkpoint
from functions.llm.models import LSTM, LSTMConfig
from functions.llm.tokenizers import CharTokenizer

BUNDLED = Path("ckpts/muninn-char")
STREAMS = (1, 8, 16, 32, 128)
SLOTS = 16
"""Of the llm function, by default: how many streams its engine runs at a time."""
TOKENS, PROMPT_TOKENS = 128, 32
WITHIN_S = 60.0
PERCENTILES = (50, 95, 99)

NOTES = (
    f"Each stream: {PROMPT_TOKENS} tokens of prompt, its own; {TOKENS} tokens drawn at temperature 0.8 and top-k 40.",
    "All requests of a load are sent at once, by another process on the same machine.",
    "First token: from the request to the first token event. A chunk: tokens that are read at once. Chunk gap: between "
    "two chunks of a stream.",
    "Token gap: a chunk's gap, shared evenly by its tokens. Percentiles are over all streams of a load; the table has "
    "their medians over the rounds.",
    f"Fair share: the load's tokens at the speed of {SLOTS} streams in the same round: what those slots need for it.",
    "Slowest / fair share: the longest wait of the load for a first token over that.",
)

Waits = tuple[float, float, float]
"""50th, 95th and 99th percentile, in milliseconds."""


@dataclass(frozen=True)
class Load:
    """What so many streams met, once.

    Args:
        rate: tokens a second, of all streams, from the first request to the last token.
        first_token: until a stream's first token.
        chunk_gap: between two chunks of a stream.
        token_gap: between two tokens of a stream, those of a chunk having come evenly.
        slowest_ms: the longest wait for a first token.
        failures: why streams failed, one entry each.
    """

    rate: float
    first_token: Waits
    chunk_gap: Waits
    token_gap: Waits
    slowest_ms: float
    failures: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.rate:,.0f}/s" + (f" and {len(self.failures)} failed" if self.failures else "")

    @classmethod
    def of(cls, records: Sequence[StreamRecord]) -> "Load":
        """Return the figures of streams that were sent together."""
        firsts = [record.arrivals[0][0] - record.sent for record in records if record.arrivals]
        gaps = [
            (later - earlier, count)
            for record in records
            for (earlier, _), (later, count) in itertools.pairwise(record.arrivals)
        ]
        last = max((record.arrivals[-1][0] for record in records if record.arrivals), default=float("inf"))
        return cls(
            rate=sum(record.tokens for record in records) / (last - min(record.sent for record in records)),
            first_token=_percentiles(firsts),
            chunk_gap=_percentiles([gap for gap, _ in gaps]),
            token_gap=_percentiles([gap / count for gap, count in gaps for _ in range(count)]),
            slowest_ms=1e3 * max(firsts, default=float("nan")),
            failures=tuple(record.failure for record in records if record.failure is not None),
        )


Turns = Generator[dict[int, Load], None, None]


@dataclass(frozen=True)
class LoadReport:
    """Every contender's loads: by contender and by number of streams, one a round."""

    loads: Mapping[str, Mapping[int, Sequence[Load]]]

    def fair_share(self, name: str, streams: int) -> float:
        """Return the slowest wait for a first token over the fair share, median over the rounds."""
        return median(
            load.slowest_ms / 1e3 / (streams * TOKENS / full.rate)
            for load, full in zip(self.loads[name][streams], self.loads[name][SLOTS], strict=True)
        )

    def speed_up(self, name: str, streams: int) -> float:
        """Return the tokens a second of so many streams over those of one, median over the rounds."""
        pairs = zip(self.loads[name][streams], self.loads[name][1], strict=True)
        return median(load.rate / one.rate for load, one in pairs)

    def evenness(self, name: str, streams: int) -> float:
        """Return p99 over p50 of the token gap, median over the rounds."""
        return median(load.token_gap[2] / load.token_gap[0] for load in self.loads[name][streams])

    def as_text(self) -> str:
        """Return a table for each contender."""
        return "\n".join(line for name in self.loads for line in (*self._table(name), "")) + self._foot()

    def _table(self, name: str) -> list[str]:
        head = (
            f"| {name}: streams | tokens/s | spread | over one | first token, ms: p50 / p95 / p99 | chunk gap, ms "
            "| token gap, ms | p99 / p50 | slowest / fair share | failed |"
        )
        rows = []
        for streams, loads in self.loads[name].items():
            rates = [load.rate for load in loads]
            cells = [
                str(streams),
                readable(median(rates)),
                spread(rates),
                f"{self.speed_up(name, streams):.2f}",
                *(_cell([getattr(load, wait) for load in loads]) for wait in ("first_token", "chunk_gap", "token_gap")),
                f"{self.evenness(name, streams):.2f}",
                f"{self.fair_share(name, streams):.2f}" if streams > SLOTS else "",
                str(sum(len(load.failures) for load in loads)),
            ]
            rows.append(f"| {' | '.join(cells)} |")
        return [head, "|" + " --- |" * 10, *rows]

    def _foot(self) -> str:
        every = (load for loads in self.loads.values() for rounds in loads.values() for load in rounds)
        failures = sorted({reason for load in every for reason in load.failures})
        reasons = [f"Failed: {'; '.join(failures[:5])}."] if failures else []
        return "\n".join([*reasons, *NOTES, machine()]) + "\n"

    def as_json(self) -> dict[str, Any]:
        """Return every load of every round."""
        return {
            "loads": {
                name: {str(streams): [asdict(load) for load in rounds] for streams, rounds in loads.items()}
                for name, loads in self.loads.items()
            },
            "over_one": self._every(self.speed_up),
            "token_gap_p99_over_p50": self._every(self.evenness),
            "slowest_over_fair_share": self._every(self.fair_share),
            "notes": NOTES,
            "machine": machine(),
        }

    def _every(self, figure: Callable[[str, int], float]) -> dict[str, dict[str, float]]:
        return {name: {str(streams): figure(name, streams) for streams in loads} for name, loads in self.loads.items()}

    def as_svg(self) -> str:
        """Return three panels for each contender: the rate, and the waits of the unluckiest hundredth."""
        figures: dict[str, Callable[[Load], float]] = {
            "tokens/s": lambda load: load.rate,
            "first token, ms, 99th percentile": lambda load: load.first_token[2],
            "token gap, ms, 99th percentile": lambda load: load.token_gap[2],
        }
        panels = [
            Panel(f"{name}: {what}", [_bar(streams, rounds, figure) for streams, rounds in loads.items()])
            for name, loads in self.loads.items()
            for what, figure in figures.items()
        ]
        return bar_chart("many streams over HTTP at once", panels, [machine()])


def run(args: argparse.Namespace) -> LoadReport:
    """Measure every number of streams in each contender's turn."""
    shape = LSTMConfig(vocab_size=2637, emb=256, hid=512, layers=2)
    with tempfile.TemporaryDirectory() as folder:
        lstm = random_checkpoint(Path(folder, "lstm"), shape)
        turns = take_turns(
            {
                "muninn-char, Huginn": (huginn, (BUNDLED,)),
                "LSTM 2 x 512, Huginn": (huginn, (lstm,)),
                "LSTM 2 x 512, torch behind FastAPI": (torch_behind_fastapi, (lstm,)),
            },
            args.rounds,
        )
    return LoadReport({name: {n: [turn[n] for turn in rounds] for n in STREAMS} for name, rounds in turns.items()})


def random_checkpoint(folder: Path, config: LSTMConfig) -> Path:
    """Save a model of this shape whose parameters are random, with a tokenizer of as many characters."""
    tokenizer = CharTokenizer.from_text("".join(chr(0x4E00 + n) for n in range(config.vocab_size)))
    save_checkpoint(folder, LSTM(config, LSTM.init_params(config, jax.random.key(0))), tokenizer, "")
    return folder


def huginn(checkpoint: Path) -> Turns:
    """Load the llm function, with a queue that everybody fits into."""
    vocab_size = read_config(checkpoint)["model"]["vocab_size"]
    yield from _turns(huginn_server(checkpoint, MAX_QUEUE=str(max(STREAMS))), vocab_size)


def torch_behind_fastapi(checkpoint: Path) -> Turns:
    """Load the predecessor's loop in torch."""
    server = app_server("benchmarks.torch_server:app", "/readyz", {"BENCHMARK_CKPT": str(checkpoint)})
    yield from _turns(server, read_config(checkpoint)["model"]["vocab_size"])


def _turns(server: AbstractContextManager[tuple[int, int]], vocab_size: int) -> Turns:
    rng = np.random.default_rng(0)
    with server as (port, _):

        def load(streams: int) -> Load:
            bodies = [_body(rng.integers(0, vocab_size, PROMPT_TOKENS).tolist(), seed) for seed in range(streams)]
            return Load.of(read_streams(port, "/generate/stream", bodies, WITHIN_S))

        # Whatever is compiled or filled at a first use is not part of the figures. What compiles behind an open door
        # compiles last what a scored prompt needs.
        read_streams(port, "/generate/stream", [_scored_prompt(vocab_size)], WITHIN_S)
        load(SLOTS)
        yield {}
        while True:
            yield {streams: load(streams) for streams in STREAMS}


def _body(prompt: list[int], seed: int) -> dict[str, Any]:
    return {"prompt": prompt, "max_tokens": TOKENS, "temperature": 0.8, "top_k": 40, "seed": seed, "ignore_eos": True}


def _scored_prompt(vocab_size: int) -> dict[str, Any]:
    return _body([token % vocab_size for token in range(300)], 0) | {"echo": True, "logprobs": 1}


def _percentiles(seconds: Sequence[float]) -> Waits:
    if not seconds:
        return (float("nan"),) * 3
    p50, p95, p99 = (float(1e3 * wait) for wait in np.percentile(seconds, PERCENTILES))
    return p50, p95, p99


def _cell(waits: Sequence[Waits]) -> str:
    return " / ".join(readable(median(column)) for column in zip(*waits, strict=True))


def _bar(streams: int, rounds: Sequence[Load], figure: Callable[[Load], float]) -> Bar:
    figures = [figure(load) for load in rounds]
    return Bar(f"{streams} stream{'s' * (streams > 1)}", figures, readable(median(figures)))
