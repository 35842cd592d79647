"""`huginn quantize`: a checkpoint with its matrices in int8 or bfloat16, and what that costs."""

import argparse
import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from functions.llm.commands.destination import not_replaceable

if TYPE_CHECKING:
    from functions.llm.checkpoints.checkpoint import Checkpoint
    from functions.llm.models import RecurrentLM
    from functions.llm.tokenizers.tokenizer import TokenArray
    from functions.llm.training.evaluation import Evaluation
    from functions.llm.training.recipe import Recipe

EXAMPLES = """\
examples:
  huginn quantize ckpts/muninn-char ckpts/muninn-char-int8 --text tinyshakespeare.txt
  huginn quantize ckpts/mixed ckpts/mixed-bf16 --dtype bfloat16 --json

The loss before and after is that on the last share of each text, which training left out. Without --text it is on the
texts of the checkpoint's own training, if they are still there.
"""

BAD_INPUT = 3

TOLERATED_NATS = 0.005
"""A loss that grew by more than this is pointed out."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Make a checkpoint of another with its matrices in int8, each row with a scale of its own, or in bfloat16: "
        "a quarter of the bytes, or half. Embeddings, norms, biases and convolutions stay in float32."
    )
    parser.epilog = EXAMPLES
    parser.add_argument("source", metavar="SRC", type=Path, help="folder of the checkpoint, in float32")
    parser.add_argument("destination", metavar="OUT", type=Path, help="the checkpoint folder to make")
    parser.add_argument("--dtype", choices=("int8", "bfloat16"), default="int8", help="of the matrices (int8)")
    parser.add_argument("--text", nargs="+", type=Path, metavar="FILE", help="texts to compare the losses on")
    parser.add_argument(
        "--validation", type=float, metavar="SHARE", help="only each text's last share (the training's own, or 0.1)"
    )
    parser.add_argument("--window", type=int, metavar="T", help="score windows of T tokens, each from an empty memory")
    parser.add_argument("--force", action="store_true", help="replace the checkpoint in OUT, if there is one")
    parser.add_argument("--json", action="store_true", help="report as JSON")


def run(args: argparse.Namespace) -> int:
    """Quantize and report on standard output; 3 if something given cannot be used or OUT must not be replaced."""
    from functions.llm.checkpoints.checkpoint import CheckpointError, load_checkpoint, read_config, save_checkpoint
    from functions.llm.checkpoints.quantized_model import NotQuantizableError, quantize_model
    from functions.llm.tokenizers import TokenizerError
    from functions.llm.training.corpus import CorpusError

    source, destination = args.source, args.destination
    if destination.exists():
        if destination.resolve() == source.resolve():
            return _fail(f"{destination} is SRC itself", "choose another OUT")
        if reason := not_replaceable(destination):
            return _fail(f"{destination} {reason}", "choose another OUT")
        if not args.force:
            again = shlex.join(["huginn", "quantize", str(source), str(destination), "--force"])
            return _fail(f"{destination} is already there", f"replace it: {again}")
    try:
        checkpoint = load_checkpoint(source)
        validation = _validation_of(args, checkpoint)
        _say(f"quantizing {source} to {args.dtype}")
        model = quantize_model(checkpoint.model, args.dtype)
        comparison = _compare(checkpoint, model, validation) if validation is not None else None
        card = _card(destination.name, checkpoint, args.dtype, comparison)
        save_checkpoint(destination, model, checkpoint.tokenizer, card)
    except NotQuantizableError as error:
        return _fail(f"{source}: {error}", "quantize the float32 checkpoint that it was made of")
    except (CheckpointError, CorpusError, TokenizerError) as error:
        return _fail(str(error), "what can be quantized: huginn quantize --help")
    except OSError as error:
        return _fail(f"{error.filename or destination}: {error.strerror or error}", "choose another OUT")

    report = {
        "checkpoint": str(destination),
        "dtype": args.dtype,
        "digest": read_config(destination)["digest"],
        "bytes": (destination / "model.safetensors").stat().st_size,
        "bytes_before": checkpoint.size_bytes,
    }
    report |= comparison.report() if comparison is not None else {"before": None, "after": None, "nats_worse": None}
    print(json.dumps(report, indent=2) if args.json else _words(report))
    if comparison is not None and comparison.nats_worse > TOLERATED_NATS:
        print(
            f"huginn: the loss grew by {comparison.nats_worse:.4f} nats per token, more than {TOLERATED_NATS}; "
            "--dtype bfloat16 keeps more",
            file=sys.stderr,
        )
    return 0


@dataclass(frozen=True)
class _Validation:
    """What the losses are compared on: a text's held-out tokens each, and how they are read."""

    texts: "dict[str, TokenArray]"
    share: float
    window: int | None


@dataclass(frozen=True)
class _Comparison:
    """The losses of both models on the same tokens."""

    before: "Evaluation"
    after: "Evaluation"
    validation: _Validation

    @property
    def nats_worse(self) -> float:
        return self.after.nats_per_token - self.before.nats_per_token

    def report(self) -> dict[str, Any]:
        """Return what is reported of it."""
        return {
            "texts": list(self.validation.texts),
            "validation": self.validation.share,
            "window": self.validation.window,
            "tokens": self.before.tokens,
            "before": _figures(self.before),
            "after": _figures(self.after),
            "nats_worse": self.nats_worse,
        }


def _figures(found: "Evaluation") -> dict[str, float]:
    return {
        "nats_per_token": found.nats_per_token,
        "bits_per_byte": found.bits_per_byte,
        "perplexity": found.perplexity,
    }


def _validation_of(args: argparse.Namespace, checkpoint: "Checkpoint") -> _Validation | None:
    """Return what to compare on, or None if there is nothing: neither --text, nor the texts of its training."""
    from functions.llm.training.corpus import CorpusError, read_corpora

    files, share = args.text, args.validation
    if files is None:
        recipe = _recipe(checkpoint)
        if recipe is None:
            return None
        files = [Path(file) for file in recipe.files]
        share = recipe.options.validation if share is None else share
    share = 0.1 if share is None else share
    if not 0 < share <= 1:
        raise CorpusError(f"--validation is {share}; it must be above 0 and at most 1")
    if args.window is not None and args.window < 1:
        raise CorpusError(f"--window is {args.window}; it must be at least 1")
    texts = {}
    for file, corpus in zip(files, read_corpora(files), strict=True):
        tokens = checkpoint.tokenizer.encode_array(corpus.text if share == 1 else corpus.split(share)[1])
        if len(tokens) < 2:
            raise CorpusError(f"{file}: {len(tokens)} tokens to score; at least 2 are needed")
        texts[file.name] = tokens
    return _Validation(texts, share, args.window)


def _recipe(checkpoint: "Checkpoint") -> "Recipe | None":
    """Return the recipe of the training in the checkpoint's folder, if its texts are all there."""
    from functions.llm.checkpoints.checkpoint import CheckpointError
    from functions.llm.training.recipe import Recipe

    try:
        recipe = Recipe.read(checkpoint.path / "training")
    except CheckpointError:
        return None
    return recipe if all(Path(file).is_file() for file in recipe.files) else None


def _compare(checkpoint: "Checkpoint", model: "RecurrentLM", validation: _Validation) -> _Comparison:
    from functions.llm.training.evaluation import Evaluation, evaluate_carried, evaluate_windows

    def loss(what: str, model: "RecurrentLM") -> Evaluation:
        found = []
        for name, tokens in validation.texts.items():
            _say(f"scoring {len(tokens) - 1:,} tokens of {name} {what}")
            found.append(
                evaluate_windows(model, checkpoint.tokenizer, tokens, validation.window)
                if validation.window
                else evaluate_carried(model, checkpoint.tokenizer, tokens)
            )
        return Evaluation(sum(f.nats for f in found), sum(f.tokens for f in found), sum(f.bytes for f in found))

    return _Comparison(loss("before", checkpoint.model), loss("after", model), validation)


def _card(name: str, source: "Checkpoint", dtype: str, comparison: _Comparison | None) -> str:
    """Return the new checkpoint's card: how it was made, what it lost, and then the card of what it was made of."""
    how = "int8, each row with a scale of its own" if dtype == "int8" else "bfloat16"
    lines = [
        f"# {name}",
        "",
        f"{source.name} with its matrices in {how}; the rest of it is in float32. "
        f"Made by `huginn quantize --dtype {dtype}`; nothing was trained.",
        "",
        f"- made of: {source.name}, SHA-256 of its weights `{source.digest}`",
    ]
    if comparison is None:
        lines.append("- the loss was not measured: no text was given")
    else:
        validation = comparison.validation
        memory = f"empty at every window of {validation.window}" if validation.window else "carried through each text"
        lines += [
            f"- loss on the last {validation.share:.0%} of {', '.join(validation.texts)}, "
            f"{comparison.before.tokens:,} tokens, memory {memory}:",
            "",
            "| matrices | nats per token | bits per byte | perplexity |",
            "| --- | --- | --- | --- |",
            *(
                f"| {label} | {found.nats_per_token:.4f} | {found.bits_per_byte:.4f} | {found.perplexity:.3f} |"
                for label, found in (("float32", comparison.before), (dtype, comparison.after))
            ),
        ]
    try:
        before = (source.path / "card.md").read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError):
        before = ""
    if before:
        # One level down, so that the card keeps one title.
        lines += ["", f"## The card of {source.name}", "", *(_demoted(before.splitlines()))]
    return "\n".join(lines) + "\n"


def _demoted(lines: list[str]) -> list[str]:
    demoted, in_code = [], False
    for line in lines:
        in_code ^= line.startswith("```")
        demoted.append(f"##{line}" if line.startswith("#") and not in_code else line)
    return demoted


def _words(report: dict[str, Any]) -> str:
    folder = shlex.quote(report["checkpoint"])
    size = f"{report['bytes'] / 1e6:.1f} MB, before {report['bytes_before'] / 1e6:.1f} MB"
    if report["before"] is None:
        loss = "loss: not measured; --text FILE compares it with the one before"
    else:
        before, after = (report[key]["nats_per_token"] for key in ("before", "after"))
        loss = f"loss: {after:.4f} nats per token, before {before:.4f} ({report['nats_worse']:+.4f})"
    return (
        f"{report['checkpoint']}: {report['dtype']}, {size}\n{loss}\n"
        f"next: huginn generate --ckpt {folder} --seed 'Once upon a time'"
    )


def _say(what: str) -> None:
    if sys.stderr.isatty():
        print(what, file=sys.stderr)


def _fail(what: str, remedy: str) -> int:
    print(f"huginn: {what}\n  {remedy}", file=sys.stderr)
    return BAD_INPUT
