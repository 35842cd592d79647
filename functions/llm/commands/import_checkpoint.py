"""`huginn import`: a torch checkpoint of the predecessor as a checkpoint folder."""

import argparse
import json
import shlex
import sys
from pathlib import Path

from functions.llm.commands.destination import not_replaceable

EXAMPLES = """\
examples:
  huginn import rnn.pt ckpts/raven
  huginn import rnn.pt ckpts/raven --force --json
"""

BAD_INPUT = 3


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Make a checkpoint folder of a torch LSTM checkpoint (state_dict, config, and chars or tokenizer). "
        "Torch is not needed, and nothing in the file is run: it is read as data."
    )
    parser.epilog = EXAMPLES
    parser.add_argument("source", metavar="SOURCE.pt", type=Path, help="the file that torch.save wrote")
    parser.add_argument("destination", metavar="DEST_DIR", type=Path, help="the checkpoint folder to make")
    parser.add_argument("--force", action="store_true", help="replace the checkpoint in DEST_DIR, if there is one")
    parser.add_argument("--json", action="store_true", help="report as JSON")


def run(args: argparse.Namespace) -> int:
    """Import and report on standard output; 3 if the source cannot be used or the destination must not be."""
    from functions.llm.checkpoints.checkpoint import read_config, save_checkpoint
    from functions.llm.checkpoints.torch_import import count_parameters, import_card, import_torch_checkpoint
    from functions.llm.checkpoints.torch_reader import TorchFileError

    source, destination = args.source, args.destination
    if destination.exists():
        if reason := not_replaceable(destination):
            return _fail(f"{destination} {reason}", "choose another DEST_DIR")
        if not args.force:
            again = shlex.join(["huginn", "import", str(source), str(destination), "--force"])
            return _fail(f"{destination} is already there", f"replace it: {again}")
    try:
        model, tokenizer = import_torch_checkpoint(source)
        save_checkpoint(destination, model, tokenizer, import_card(source, model, tokenizer))
    except TorchFileError as error:
        return _fail(str(error), "what can be imported: huginn import --help")
    except OSError as error:
        return _fail(f"{error.filename or destination}: {error.strerror or error}", "choose another DEST_DIR")

    report = {
        "checkpoint": str(destination),
        "family": model.config.family,
        "tokenizer": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "parameters": count_parameters(model),
        "digest": read_config(destination)["digest"],
    }
    print(json.dumps(report) if args.json else _words(report))
    return 0


def _words(report: dict[str, str | int]) -> str:
    folder = shlex.quote(str(report["checkpoint"]))
    return (
        f"{report['checkpoint']}: {report['family']}, {report['parameters']:,} parameters, "
        f"{report['vocab_size']} tokens ({report['tokenizer']})\n"
        f"next: huginn generate --ckpt {folder} --seed 'Once upon a time'"
    )


def _fail(what: str, remedy: str) -> int:
    print(f"huginn: {what}\n  {remedy}", file=sys.stderr)
    return BAD_INPUT
