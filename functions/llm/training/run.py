"""A training from its first step to its last, through interruptions."""

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from functions.llm.checkpoints.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from functions.llm.models import RecurrentLM, model_config
from functions.llm.tokenizers import ByteTokenizer, CharTokenizer, Tokenizer, train_bpe
from functions.llm.tokenizers.tokenizer import TokenArray
from functions.llm.training.batches import Batches
from functions.llm.training.card import Evaluated, model_card
from functions.llm.training.corpus import Corpus, CorpusError, read_corpora
from functions.llm.training.evaluation import Evaluation, evaluate_carried, evaluate_windows
from functions.llm.training.journal import Cost, CostMeter, Entry, Journal
from functions.llm.training.loss_curve import write_svg
from functions.llm.training.progress import Progress
from functions.llm.training.recipe import Recipe
from functions.llm.training.sample import sample_text
from functions.llm.training.trainer import STATE_FILE, Trainer

VALIDATION_LIMIT = 262_144
"""Tokens of each corpus that are evaluated at most: enough for three digits, and quick."""
SAMPLE_LENGTH = 200
RECENT = 0.05
"""Weight of the newest loss in the figure that the progress bar shows."""


@dataclass
class _Standing:
    """Where a training is, apart from the parameters; saved with them."""

    train_nats_sum: float = 0.0
    train_nats_count: int = 0
    best_step: int = 0
    cost: Cost = field(default_factory=Cost)
    data: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "_Standing":
        values = json.loads(text)
        return cls(**values | {"cost": Cost(**values["cost"])})


@dataclass(frozen=True)
class Outcome:
    """How a sitting ended: finished, or interrupted with everything saved."""

    finished: bool
    step: int
    entries: list[Entry]
    evaluated: Evaluated | None


@dataclass(frozen=True)
class _Validation:
    """A corpus's validation part."""

    tokens: TokenArray
    bytes: int
    weight: float


class Training:
    """A training in the folder ``out``: the best checkpoint there, metrics.jsonl, loss.svg, and its state in training/.

    Args:
        recipe: what to do.
        out: where.
    """

    def __init__(self, recipe: Recipe, out: Path) -> None:
        self._recipe, self._out = recipe, out
        self._options = recipe.options
        self._state_folder = out / "training"
        self._journal = Journal(out / "metrics.jsonl")
        self._corpora = read_corpora([Path(file) for file in recipe.files], recipe.weights)
        parts = [corpus.split(self._options.validation) for corpus in self._corpora]
        self._tokenizer = _make_tokenizer(recipe, self._corpora, [train for train, _ in parts])
        self._config = model_config({**recipe.model, "vocab_size": self._tokenizer.vocab_size})
        self._batches = Batches(
            [self._tokenizer.encode_array(train) for train, _ in parts],
            [corpus.weight for corpus in self._corpora],
            batch=self._options.batch,
            length=self._options.length,
            seed=self._options.seed,
        )
        self._validations = [
            _validation(self._tokenizer, corpus, text) for corpus, (_, text) in zip(self._corpora, parts, strict=True)
        ]
        self._tokens_per_byte = sum(len(v.tokens) for v in self._validations) / sum(v.bytes for v in self._validations)

    def run(
        self, *, resume: bool, sample_every: int, stop: Callable[[], bool], progress: Callable[[int, int], Progress]
    ) -> Outcome:
        """Train to the last step, or until ``stop()`` says so; save either way.

        Args:
            resume: go on from the saved state instead of the beginning.
            sample_every: evaluations between two samples of text; 0 for none.
            stop: asked after every step.
            progress: makes the reporter, given all steps and those done.
        """
        trainer = Trainer(self._config, self._options)
        standing = _Standing(data=[corpus.digest for corpus in self._corpora])
        # A training that ended before its first evaluation has left its recipe and no state: it begins anew.
        if resume and (self._state_folder / STATE_FILE).exists():
            standing = self._restore(trainer)
            self._journal.keep_up_to(trainer.step)
        else:
            self._recipe.write(self._state_folder)
            self._journal.keep_up_to(-1)
        with progress(self._options.steps, trainer.step) as report:
            finished = self._loop(trainer, standing, sample_every, stop, report)
        if not finished:
            return Outcome(False, trainer.step, self._journal.read(), None)
        return Outcome(True, trainer.step, self._journal.read(), self._finish(standing))

    def _loop(
        self, trainer: Trainer, standing: _Standing, sample_every: int, stop: Callable[[], bool], report: Progress
    ) -> bool:
        options, meter, recent = self._options, CostMeter(standing.cost), None
        tokens_a_step = options.batch * options.length
        while trainer.step < options.steps:
            started = time.monotonic()
            loss = trainer.update(*self._batches.at(trainer.step))
            standing.train_nats_sum += loss
            standing.train_nats_count += 1
            recent = loss if recent is None else recent + RECENT * (loss - recent)
            report.update(trainer.step, recent, self._tokens_per_byte, tokens_a_step / (time.monotonic() - started))
            if not math.isfinite(loss):
                raise self._diverged(loss, trainer)
            if trainer.step % options.eval_every == 0 or trainer.step == options.steps:
                self._evaluate(trainer, standing, meter, report)
                if sample_every and (trainer.step // options.eval_every) % sample_every == 0:
                    report.sample(self._sample(trainer.model()))
                trainer.save(self._state_folder, standing.to_json())
            if stop() and trainer.step < options.steps:
                self._interrupt(trainer, standing, meter)
                return False
        return True

    def _evaluate(self, trainer: Trainer, standing: _Standing, meter: CostMeter, report: Progress) -> None:
        model = trainer.model()
        entry = self._measure(model, trainer, standing, meter)
        if not math.isfinite(entry.val_nats):
            raise self._diverged(entry.val_nats, trainer)
        standing.train_nats_sum, standing.train_nats_count = 0.0, 0
        entries = [*self._journal.read(), entry]
        best = min(entries, key=lambda entry: entry.val_nats) is entry
        if best:
            standing.best_step = trainer.step
            save_checkpoint(self._out, model, self._tokenizer, self._card(entry, entry, None))
        self._journal.append(entry)
        write_svg(entries, self._out / "loss.svg", self._out.resolve().name)
        report.evaluated(entry, self._options.steps, best=best)

    def _interrupt(self, trainer: Trainer, standing: _Standing, meter: CostMeter) -> None:
        """Save the state; and a checkpoint to try, where no evaluation has chosen one yet."""
        if not standing.best_step:
            model = trainer.model()
            entry = self._measure(model, trainer, standing, meter)
            save_checkpoint(self._out, model, self._tokenizer, self._card(entry, entry, None))
        standing.cost = meter.read(self._tokens_seen(trainer))
        trainer.save(self._state_folder, standing.to_json())

    def _tokens_seen(self, trainer: Trainer) -> int:
        return trainer.step * self._options.batch * self._options.length

    def _measure(self, model: RecurrentLM, trainer: Trainer, standing: _Standing, meter: CostMeter) -> Entry:
        nats, bits_per_byte = self._validation_loss(model)
        standing.cost = meter.read(self._tokens_seen(trainer))
        return Entry(
            step=trainer.step,
            train_nats=standing.train_nats_sum / standing.train_nats_count,
            val_nats=nats,
            val_bits_per_byte=bits_per_byte,
            **asdict(standing.cost),
        )

    def _diverged(self, loss: float, trainer: Trainer) -> Exception:
        return TrainingDivergedError(
            f"the loss is {loss} at step {trainer.step}; try a smaller --lr (it is {self._options.learning_rate}) "
            "in another --out"
        )

    def _restore(self, trainer: Trainer) -> _Standing:
        standing = _Standing.from_json(trainer.restore(self._state_folder))
        for corpus, digest in zip(self._corpora, standing.data, strict=True):
            if corpus.digest != digest:
                raise CheckpointError(f"{corpus.name} is not the text that {self._out} was trained on (SHA-256)")
        return standing

    def _validation_loss(self, model: RecurrentLM) -> tuple[float, float]:
        found = self._windows(model)
        weights = [v.weight for v in self._validations]
        return (
            sum(weight * one.nats_per_token for one, weight in zip(found, weights, strict=True)),
            sum(weight * one.bits_per_byte for one, weight in zip(found, weights, strict=True)),
        )

    def _windows(self, model: RecurrentLM) -> list[Evaluation]:
        """Return the loss from an empty memory at every window, for each corpus."""
        return [evaluate_windows(model, self._tokenizer, v.tokens, self._options.length) for v in self._validations]

    def _finish(self, standing: _Standing) -> Evaluated:
        """Evaluate the best checkpoint both ways, and put that on its card."""
        model = load_checkpoint(self._out).model
        evaluated = Evaluated(
            windows=_sum(self._windows(model)),
            carried=_sum(evaluate_carried(model, self._tokenizer, v.tokens) for v in self._validations),
        )
        entries = self._journal.read()
        best = next(entry for entry in entries if entry.step == standing.best_step)
        (self._out / "card.md").write_text(self._card(best, entries[-1], evaluated), encoding="utf-8")
        return evaluated

    def _card(self, best: Entry, total: Entry, evaluated: Evaluated | None) -> str:
        name = self._out.resolve().name
        kind = self._tokenizer.kind
        command = self._recipe.command
        return model_card(name, command, self._config, self._options, self._corpora, kind, best, total, evaluated)

    def _sample(self, model: RecurrentLM) -> str:
        # The text after a line's end is the beginning of a line.
        first = int(self._tokenizer.encode_array("\n")[0])
        return sample_text(model, self._tokenizer, first, SAMPLE_LENGTH, self._options.seed)


class TrainingDivergedError(ArithmeticError):
    """The loss is no number any more."""


def _make_tokenizer(recipe: Recipe, corpora: Sequence[Corpus], training_parts: Sequence[str]) -> Tokenizer:
    match recipe.tokenizer:
        case "byte":
            return ByteTokenizer()
        case "char":
            # All the text's characters: one that only the validation part has could not be scored otherwise.
            return CharTokenizer.from_text("".join(sorted({c for corpus in corpora for c in set(corpus.text)})))
        case "bpe":
            return train_bpe(training_parts, recipe.vocab_size)
        case other:
            raise CorpusError(f"tokenizer is {other!r}; it must be byte, char or bpe")


def _validation(tokenizer: Tokenizer, corpus: Corpus, text: str) -> _Validation:
    tokens = tokenizer.encode_array(text)[: VALIDATION_LIMIT + 1]
    if len(tokens) < 2:
        raise CorpusError(
            f"{corpus.name}: its validation part has {len(tokens)} tokens; give more text or a larger --validation"
        )
    return _Validation(tokens, len(tokenizer.decode(tokens.tolist()).encode()), corpus.weight)


def _sum(evaluations: Iterable[Evaluation]) -> Evaluation:
    nats, tokens, size = zip(*((one.nats, one.tokens, one.bytes) for one in evaluations), strict=True)
    return Evaluation(sum(nats), sum(tokens), sum(size))
