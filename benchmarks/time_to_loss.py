"""Minutes of training to the LSTM's best validation loss, by the predecessor's family and by minGRU."""

import argparse
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.charts import line_chart
from benchmarks.contender import take_turns
from benchmarks.report import machine

# Each family's own recipe: a schedule as long as it uses well, its rate, its dropout. Rows, precision and optimizer are
# the same for both.
RECIPES: dict[str, dict[str, Any]] = {
    "lstm": {"sizes": {"emb": 256, "hid": 512, "layers": 2, "dropout": 0.2}, "steps": 600, "learning_rate": 2e-3},
    "mingru": {"sizes": {"dropout": 0.1}, "steps": 300, "learning_rate": 3e-3},
}
STEPS_A_TURN = 25
VALIDATION = 0.1
WINDOW = 256
BATCH = 32


@dataclass(frozen=True)
class LossOverTime:
    """Validation loss over minutes of training, for both families."""

    curves: dict[str, list[tuple[float, float]]]

    @property
    def target(self) -> float:
        """The best validation loss of the LSTM's schedule, in nats per token."""
        return min(loss for _, loss in self.curves["lstm"])

    def minutes(self, family: str) -> float | None:
        """Return when this family was first at the target or below."""
        return next((minutes for minutes, loss in self.curves[family] if loss <= self.target), None)

    def as_json(self) -> dict[str, Any]:
        """Return everything, for a file."""
        return {
            "target_nats": self.target,
            "minutes": {family: self.minutes(family) for family in self.curves},
            "curves": self.curves,
            "machine": machine(),
        }

    def as_text(self) -> str:
        """Return a table in Markdown."""
        rows = [
            f"| {family} | {'not reached' if (m := self.minutes(family)) is None else f'{m:.1f}'} "
            f"| {min(loss for _, loss in curve):.4f} after {curve[-1][0]:.1f} minutes |"
            for family, curve in self.curves.items()
        ]
        head = [f"| family | minutes to {self.target:.4f} nats | best of the run |", "| --- | --- | --- |"]
        recipes = [
            f"{family}: {recipe['steps']} steps of {BATCH} x {WINDOW}, bfloat16, {recipe['sizes']}."
            for family, recipe in RECIPES.items()
        ]
        notes = "Minutes of training, compiling included, evaluation not; one seed."
        return "\n".join([*head, *rows, "", *recipes, notes, machine()]) + "\n"

    def as_svg(self) -> str:
        """Return both curves."""
        title = f"validation loss by minutes of training; {self.target:.4f} nats is the LSTM's best"
        return line_chart(title, ("minutes", "nats per token"), self.curves, [machine()])


def run(args: argparse.Namespace) -> LossOverTime:
    """Train both in turn, each with a clock of its own that stands still in the other's turn."""
    rounds = max(recipe["steps"] for recipe in RECIPES.values()) // STEPS_A_TURN
    found = take_turns({family: (train, (family, args.text)) for family in RECIPES}, rounds)
    return LossOverTime({family: [point for point in points if point] for family, points in found.items()})


def train(family: str, file: Path) -> Generator[tuple[float, float] | None, None, None]:
    """Train a few steps a turn; yield the minutes used so far, compiling included, and the validation loss."""
    from functions.llm.models import model_config
    from functions.llm.tokenizers import CharTokenizer
    from functions.llm.training.batches import Batches
    from functions.llm.training.corpus import read_corpora
    from functions.llm.training.evaluation import evaluate_windows
    from functions.llm.training.memory import keep_freed_memory
    from functions.llm.training.options import TrainingOptions
    from functions.llm.training.trainer import Trainer

    keep_freed_memory()
    recipe = RECIPES[family]
    corpus = read_corpora([file])[0]
    tokenizer = CharTokenizer.from_text(corpus.text)
    train_tokens, validation = (tokenizer.encode_array(part) for part in corpus.split(VALIDATION))
    options = TrainingOptions(
        steps=recipe["steps"], learning_rate=recipe["learning_rate"], batch=BATCH, length=WINDOW, dtype="bfloat16"
    )
    config = model_config({"family": family, "vocab_size": tokenizer.vocab_size, **recipe["sizes"]})
    trainer = Trainer(config, options)
    batches = Batches([train_tokens], [1.0], batch=options.batch, length=options.length, seed=options.seed)
    yield None
    seconds = 0.0
    while trainer.step < options.steps:
        started = time.perf_counter()
        for _ in range(STEPS_A_TURN):
            trainer.update(*batches.at(trainer.step))
        seconds += time.perf_counter() - started
        yield seconds / 60, evaluate_windows(trainer.model(), tokenizer, validation, WINDOW).nats_per_token
    while True:
        yield None
