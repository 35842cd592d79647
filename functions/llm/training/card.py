"""The model card: what a checkpoint was made from, how, and how good it is."""

from collections.abc import Sequence
from dataclasses import dataclass

from functions.llm.models import ModelConfig
from functions.llm.training.corpus import Corpus
from functions.llm.training.evaluation import Evaluation
from functions.llm.training.journal import Entry
from functions.llm.training.options import TrainingOptions


@dataclass(frozen=True)
class Evaluated:
    """A finished model on the validation text, both ways."""

    windows: Evaluation
    carried: Evaluation


def model_card(
    name: str,
    command: str,
    config: ModelConfig,
    options: TrainingOptions,
    corpora: Sequence[Corpus],
    tokenizer: str,
    best: Entry,
    total: Entry,
    evaluated: Evaluated | None,
) -> str:
    """Return the card, in Markdown; without ``evaluated`` it is that of a training that still goes on."""
    parameters = sum(_size(shape) for shape in config.param_shapes().values())
    lines = [
        f"# {name}",
        "",
        f"A `{config.family}` of {parameters:,} parameters over {config.vocab_size:,} tokens ({tokenizer}), "
        "trained by Huginn.",
        "",
        "## Data",
        "",
        "| file | characters | share of the rows | SHA-256 of the text |",
        "| --- | --- | --- | --- |",
        *(f"| {c.name} | {len(c.text):,} | {c.weight:.1%} | `{c.digest}` |" for c in corpora),
        "",
        f"The last {options.validation:.0%} of each is for validation and was not trained on.",
        "",
        "## Training",
        "",
        "```sh",
        command,
        "```",
        "",
        f"- best of the evaluations: step {best.step} of {options.steps}",
        f"- tokens seen: {total.tokens:,} in {total.step} steps",
        f"- time: {total.wall_s / 60:.1f} minutes, {total.cpu_s / 60:.1f} CPU minutes, evaluations included",
        f"- peak memory: {total.peak_memory_bytes / 1e6:,.0f} MB",
        "",
        "## Evaluation",
        "",
    ]
    if evaluated is None:
        loss = f"{best.val_nats:.4f} nats per token, {best.val_bits_per_byte:.4f} bits per byte"
        lines.append(f"{loss} on the validation text; training goes on.")
    else:
        lines += [
            f"On the validation text, {evaluated.windows.tokens:,} tokens:",
            "",
            "| memory | nats per token | bits per byte | perplexity |",
            "| --- | --- | --- | --- |",
            _row(f"empty at every window of {options.length}", evaluated.windows),
            _row("carried through the whole text", evaluated.carried),
        ]
    return "\n".join(lines) + "\n"


def _row(memory: str, found: Evaluation) -> str:
    return f"| {memory} | {found.nats_per_token:.4f} | {found.bits_per_byte:.4f} | {found.perplexity:.3f} |"


def _size(shape: Sequence[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
