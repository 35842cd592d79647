"""A training, its interruptions, and what it leaves."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from functions.llm.checkpoints.checkpoint import CheckpointError, load_checkpoint
from functions.llm.training.corpus import CorpusError
from functions.llm.training.progress import Progress
from functions.llm.training.recipe import Recipe
from functions.llm.training.run import Outcome, Training, TrainingDivergedError

COSTS = {"cpu_s", "wall_s", "peak_memory_bytes"}


def train(recipe: Recipe, out: Path, *, resume: bool = False, stop: Callable[[], bool] = lambda: False) -> Outcome:
    return Training(recipe, out).run(resume=resume, sample_every=2, stop=stop, progress=Progress)


def after(steps: int) -> Callable[[], bool]:
    asked = iter(range(1, 1000))
    return lambda: next(asked) >= steps


def numbers(out: Path) -> list[dict[str, float]]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in COSTS} for line in lines]


def test_a_training_learns_and_leaves_a_checkpoint_with_its_card_curve_and_cost(recipe: Recipe, tmp_path: Path) -> None:
    longer = replace(recipe, options=replace(recipe.options, steps=40))
    outcome = train(longer, tmp_path / "out")
    assert outcome.finished
    first, last = outcome.entries[0], outcome.entries[-1]
    assert last.val_nats < first.val_nats - 0.1
    assert last.tokens == 40 * 4 * 16
    assert 0 < first.cpu_s < last.cpu_s
    assert last.peak_memory_bytes > 10_000_000

    checkpoint = load_checkpoint(tmp_path / "out")
    assert checkpoint.tokenizer.kind == "char"
    card = (tmp_path / "out" / "card.md").read_text()
    assert outcome.evaluated is not None
    assert f"{outcome.evaluated.carried.nats_per_token:.4f}" in card
    assert "huginn train raven.txt" in card
    svg = (tmp_path / "out" / "loss.svg").read_text()
    assert svg.startswith("<?xml")
    assert "nats per token" in svg


def test_a_resumed_training_repeats_the_numbers_of_an_uninterrupted_one(recipe: Recipe, tmp_path: Path) -> None:
    """Interrupted between two evaluations: losses, parameters and all are the same to the last bit."""
    train(recipe, tmp_path / "whole")
    first = train(recipe, tmp_path / "cut", stop=after(6))
    assert (first.finished, first.step) == (False, 6)
    assert train(recipe, tmp_path / "cut", resume=True).finished
    assert numbers(tmp_path / "cut") == numbers(tmp_path / "whole")
    whole, cut = (load_checkpoint(tmp_path / name).model.params for name in ("whole", "cut"))
    for name in whole:
        np.testing.assert_array_equal(whole[name], cut[name], err_msg=name)


def test_a_line_that_was_cut_short_is_written_again(recipe: Recipe, tmp_path: Path) -> None:
    """The power went while a line was written."""
    train(recipe, tmp_path / "whole")
    train(recipe, tmp_path / "cut", stop=after(6))
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "train_n')
    train(recipe, tmp_path / "cut", resume=True)
    assert numbers(tmp_path / "cut") == numbers(tmp_path / "whole")


def test_a_training_that_left_no_state_begins_anew(recipe: Recipe, tmp_path: Path) -> None:
    recipe.write(tmp_path / "killed" / "training")
    assert train(recipe, tmp_path / "killed", resume=True).finished
    assert [entry["step"] for entry in numbers(tmp_path / "killed")] == [4, 8, 12]


def test_a_training_can_be_interrupted_right_after_an_evaluation(recipe: Recipe, tmp_path: Path) -> None:
    assert not train(recipe, tmp_path / "cut", stop=after(4)).finished
    assert train(recipe, tmp_path / "cut", resume=True).finished
    assert [entry["step"] for entry in numbers(tmp_path / "cut")] == [4, 8, 12]


def test_lines_after_the_saved_state_are_written_again(recipe: Recipe, tmp_path: Path) -> None:
    """Killed after an evaluation was logged and before the state was saved: no line stands twice."""
    train(recipe, tmp_path / "whole")
    train(recipe, tmp_path / "cut", stop=after(6))
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write((tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()[1] + "\n")
    train(recipe, tmp_path / "cut", resume=True)
    assert numbers(tmp_path / "cut") == numbers(tmp_path / "whole")


def test_an_early_interruption_leaves_a_checkpoint_to_try(recipe: Recipe, tmp_path: Path) -> None:
    outcome = train(recipe, tmp_path / "out", stop=after(1))
    assert (outcome.step, outcome.entries) == (1, [])
    assert load_checkpoint(tmp_path / "out").model.config.family == "mingru"


def test_the_checkpoint_is_that_of_the_best_evaluation(recipe: Recipe, tmp_path: Path) -> None:
    """With a rate that rises until it ruins what was learned, the last parameters are not the ones that are kept."""
    wild = replace(recipe, options=replace(recipe.options, steps=40, learning_rate=20.0, warmup=39))
    outcome = train(wild, tmp_path / "out")
    best = min(outcome.entries, key=lambda entry: entry.val_nats)
    assert best.step < 40
    assert outcome.evaluated is not None
    assert outcome.evaluated.windows.nats_per_token == pytest.approx(best.val_nats, rel=1e-5)


def test_a_text_that_changed_is_not_resumed(recipe: Recipe, text_file: Path, tmp_path: Path) -> None:
    train(recipe, tmp_path / "out", stop=after(5))
    text_file.write_text(text_file.read_text().replace("raven", "rover"))
    with pytest.raises(CheckpointError, match=r"raven\.txt is not the text"):
        train(recipe, tmp_path / "out", resume=True)


@pytest.mark.parametrize("tokenizer", ["byte", "char", "bpe"])
@pytest.mark.parametrize("family", ["mingru", "lstm"])
def test_every_family_trains_with_every_tokenizer_and_precision(
    recipe: Recipe, tmp_path: Path, tokenizer: str, family: str
) -> None:
    sizes = {"lstm": {"emb": 4, "hid": 6, "layers": 1}, "mingru": {"width": 8, "hidden": 8, "layers": 1}}[family]
    options = replace(recipe.options, steps=2, eval_every=2, dtype="bfloat16" if tokenizer == "byte" else "float32")
    changed = replace(recipe, tokenizer=tokenizer, model={"family": family, **sizes}, options=options)
    assert train(changed, tmp_path / "out").finished
    checkpoint = load_checkpoint(tmp_path / "out")
    assert (checkpoint.tokenizer.kind, checkpoint.model.config.family) == (tokenizer, family)
    assert {str(value.dtype) for value in checkpoint.model.params.values()} == {"float32"}


def test_two_corpora_are_mixed_and_both_validated(recipe: Recipe, tmp_path: Path) -> None:
    other = tmp_path / "numbers.txt"
    other.write_text("0123456789\n" * 300)
    mixed = replace(recipe, files=[*recipe.files, str(other)], weights=[1.0, 3.0])
    outcome = train(mixed, tmp_path / "out")
    assert outcome.evaluated is not None
    assert outcome.evaluated.windows.tokens > 300
    card = (tmp_path / "out" / "card.md").read_text()
    assert "| raven.txt |" in card
    assert "| numbers.txt | 3,300 | 75.0% |" in card


def test_a_loss_that_is_no_number_stops_with_advice(recipe: Recipe, tmp_path: Path) -> None:
    hopeless = replace(recipe, options=replace(recipe.options, learning_rate=1e30, warmup=0, clip=1e30))
    with pytest.raises(TrainingDivergedError, match="smaller --lr"):
        train(hopeless, tmp_path / "out")


def test_a_text_too_short_to_validate_is_named(recipe: Recipe, tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("abcdefghij" * 2)
    options = replace(recipe.options, validation=0.05)
    with pytest.raises(CorpusError, match=r"short\.txt: its validation part has 1 tokens"):
        train(replace(recipe, files=[str(short)], options=options), tmp_path / "out")
