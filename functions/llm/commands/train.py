"""`huginn train`: from text files to a checkpoint folder."""

import argparse
import json
import shlex
import shutil
import signal
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from functions.llm.training.recipe import Recipe
    from functions.llm.training.run import Outcome

EXAMPLES = """\
examples:
  huginn train shakespeare.txt --tokenizer char --model mingru --out ckpts/shakespeare
  huginn train novels.jsonl.xz letters.txt --weights 3 1 --tokenizer bpe --vocab-size 4096 --out ckpts/mixed
  huginn train --resume --out ckpts/mixed        go on after Ctrl-C, or after the power went

The folder holds the best checkpoint so far, metrics.jsonl and loss.svg; training/ in it is what --resume needs.
"""

# option -> (type, of which family, help); None stands for the family's own default.
SIZES = {
    "width": (int, "mingru", "channels of the residual stream (192)"),
    "hidden": (int, "mingru", "channels of the recurrence (384)"),
    "conv": (int, "mingru", "taps of the causal convolution (4)"),
    "mlp": (int, "mingru", "hidden units of the MLP, in widths (4)"),
    "emb": (int, "lstm", "width of the embedding (256)"),
    "hid": (int, "lstm", "hidden units of a layer (512)"),
    "layers": (int, "mingru and lstm", "layers (4 and 2)"),
    "dropout": (float, "mingru and lstm", "probability (0.1)"),
}
# option -> (field of TrainingOptions, type, help)
OPTIMISATION = {
    "steps": ("steps", int, "updates of the parameters (1000)"),
    "batch": ("batch", int, "rows an update (32)"),
    "length": ("length", int, "tokens a row (256)"),
    "lr": ("learning_rate", float, "AdamW's rate after the warm-up (mingru 0.003, lstm 0.002)"),
    "min-lr": ("min_learning_rate", float, "rate at the last step (0.0001)"),
    "warmup": ("warmup", int, "steps in which the rate rises (50)"),
    "weight-decay": ("weight_decay", float, "of the matrices (0.1)"),
    "clip": ("clip", float, "largest norm of a gradient (1)"),
    "seed": ("seed", int, "of parameters, batches and dropout (0)"),
    "dtype": ("dtype", str, "of the matrix products: float32 or bfloat16 (float32)"),
    "validation": ("validation", float, "share at each corpus's end that is not trained on (0.1)"),
    "eval-every": ("eval_every", int, "steps between evaluations (50)"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = "Train a recurrent language model, and keep the checkpoint that does best on held-out text."
    parser.epilog = EXAMPLES
    # Defaults are None, so that --resume can tell what was asked for from what was not.
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="text or .jsonl; also .gz, .xz")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the checkpoint")
    parser.add_argument("--weights", nargs="+", type=float, metavar="W", help="each file's share (its length)")
    parser.add_argument("--tokenizer", choices=("byte", "char", "bpe"), help="how text becomes tokens (char)")
    parser.add_argument("--vocab-size", type=int, metavar="N", help="tokens of a bpe (4096)")
    parser.add_argument("--model", choices=("mingru", "lstm"), help="the family (mingru)")
    parser.add_argument("--resume", action="store_true", help="go on with the training in --out")
    parser.add_argument("--sample-every", type=int, default=4, metavar="N", help="evaluations a sample (4)")
    parser.add_argument("--json", action="store_true", help="report the result as JSON on stdout")
    sizes = parser.add_argument_group("sizes of the model")
    for name, (kind, family, text) in SIZES.items():
        sizes.add_argument(f"--{name}", type=kind, metavar="N", help=f"{family}: {text}")
    optimisation = parser.add_argument_group("optimisation")
    for name, (field, kind, text) in OPTIMISATION.items():
        optimisation.add_argument(f"--{name}", dest=field, type=kind, metavar="N", help=text)


def run(args: argparse.Namespace) -> int:
    """Train; exit codes: 0 done, 3 bad input, 130 interrupted with everything saved."""
    from functions.llm.checkpoints.checkpoint import CheckpointError
    from functions.llm.models import ConfigError
    from functions.llm.tokenizers import TokenizerError
    from functions.llm.training.corpus import CorpusError
    from functions.llm.training.memory import keep_freed_memory
    from functions.llm.training.options import OptionError
    from functions.llm.training.progress import Progress
    from functions.llm.training.run import Training, TrainingDivergedError

    keep_freed_memory()
    interrupted = _Interruption()
    try:
        recipe = _resumed(args) if args.resume else _asked(args)
        outcome = Training(recipe, args.out).run(
            resume=args.resume, sample_every=args.sample_every, stop=interrupted.watch(), progress=Progress
        )
    except (CheckpointError, ConfigError, CorpusError, OptionError, TokenizerError, TrainingDivergedError) as error:
        print(f"huginn: {error}", file=sys.stderr)
        return 3
    except OSError as error:
        print(f"huginn: {error.filename or args.out}: {error.strerror or error}", file=sys.stderr)
        return 3
    finally:
        interrupted.forget()
    _report(args, outcome)
    return 0 if outcome.finished else 130


def _asked(args: argparse.Namespace) -> "Recipe":
    from functions.llm.training.corpus import CorpusError
    from functions.llm.training.options import LEARNING_RATES, OptionError, TrainingOptions
    from functions.llm.training.recipe import Recipe

    if not args.files:
        raise CorpusError("no FILE to train on; give one or more, or --resume")
    if (args.out / "training" / "state.safetensors").exists():
        raise OptionError(
            f"{args.out} already holds a training; go on with: huginn train --resume --out {args.out}   "
            "(or choose another --out)"
        )
    if (args.out / "config.json").exists():
        raise OptionError(f"{args.out} already holds a checkpoint; choose another --out")
    family = args.model or "mingru"
    sizes = {name: getattr(args, name) for name in SIZES if getattr(args, name) is not None}
    for name in sizes:
        if family not in SIZES[name][1]:
            raise OptionError(f"--{name} is of the family {SIZES[name][1]}; the model is {family}")
    given = {field: getattr(args, field) for field, _, _ in OPTIMISATION.values() if getattr(args, field) is not None}
    return Recipe(
        files=[str(file.resolve()) for file in args.files],
        weights=args.weights,
        tokenizer=args.tokenizer or "char",
        vocab_size=args.vocab_size or 4096,
        model={"family": family, "dropout": 0.1} | sizes,
        options=TrainingOptions(**{"learning_rate": LEARNING_RATES[family]} | given),
        command=_command(args),
    )


def _resumed(args: argparse.Namespace) -> "Recipe":
    from functions.llm.models import model_config
    from functions.llm.training.options import OptionError, TrainingOptions
    from functions.llm.training.recipe import Recipe

    recipe = Recipe.read(args.out / "training")
    recorded: dict[str, Any] = {field.name: getattr(recipe.options, field.name) for field in fields(TrainingOptions)}
    recorded |= dict.fromkeys(SIZES) | asdict(model_config({**recipe.model, "vocab_size": 1}))
    recorded |= {"weights": recipe.weights, "tokenizer": recipe.tokenizer, "vocab_size": recipe.vocab_size}
    recorded |= {"model": recipe.model["family"], "files": recipe.files}
    for name, value in vars(args).items():
        asked = [str(file.resolve()) for file in value] if name == "files" else value
        if name in recorded and asked not in (None, []) and asked != recorded[name]:
            raise OptionError(
                f"{name} is {asked}, but the training in {args.out} has {recorded[name]}; "
                "leave it out to resume, or start anew in another --out"
            )
    return recipe


class _Interruption:
    """Ctrl-C once: finish the step, save, stop. Twice: stop at once."""

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[signal.Signals, Any] = {}

    def watch(self) -> Any:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)
        return lambda: self._asked

    def forget(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, *_: object) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        print("\nsaving after this step; Ctrl-C again stops at once and loses it", file=sys.stderr)


def _command(args: argparse.Namespace) -> str:
    """Return the command as it was typed, files by name only."""
    words = [Path(word).name if Path(word) in args.files else word for word in sys.argv[2:]]
    return shlex.join(["huginn", "train", *words])


def _report(args: argparse.Namespace, outcome: "Outcome") -> None:
    from functions.llm.training.loss_curve import terminal_plot

    if outcome.entries and sys.stderr.isatty():
        print(terminal_plot(outcome.entries, min(100, shutil.get_terminal_size().columns)), file=sys.stderr)
    if args.json:
        best = min((entry.val_nats for entry in outcome.entries), default=None)
        print(json.dumps({"out": str(args.out), "finished": outcome.finished, "step": outcome.step, "val_nats": best}))
    if outcome.evaluated is None:
        print(f"saved at step {outcome.step}; go on with: huginn train --resume --out {args.out}", file=sys.stderr)
        return
    windows, carried = outcome.evaluated.windows, outcome.evaluated.carried
    print(
        f"validation: {windows.nats_per_token:.4f} nats/token from an empty memory, "
        f"{carried.nats_per_token:.4f} carried ({carried.bits_per_byte:.4f} bits/byte)\n"
        f"try it:     huginn generate --ckpt {args.out} --seed 'Once'",
        file=sys.stderr,
    )
