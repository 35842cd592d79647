"""The llm function's own command, which a container has that holds nothing else: python -m functions.llm.cli."""

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

EXIT_CODES = "exit codes: 0 ok, 1 failed, 2 wrong use, 3 bad input, 4 a service or port cannot be had, 130 Ctrl-C"

# command -> (module under functions.llm.commands, what it does)
COMMANDS = {
    "train": ("train", "train a model on text files"),
    "eval": ("evaluate", "score a text with a checkpoint"),
    "generate": ("generate", "go on with a text"),
    "import": ("import_checkpoint", "make a checkpoint of a torch file of the predecessor"),
    "quantize": ("quantize", "make a checkpoint with smaller weights of another"),
    "models": ("models", "list the checkpoints"),
    "compile": ("compile", "compile ahead what serving needs"),
    "doctor": ("doctor", "say what this machine lacks, and what that costs"),
}

# What only training needs; an installation that serves has none of it.
TRAINING_PACKAGES = ("flax", "functions.llm.training", "matplotlib", "optax", "orbax", "plotext", "rich")


def add_commands(subparsers: "Subparsers") -> None:
    """Add the llm function's commands to a command line; each sets ``run``, which returns the exit code."""
    for name, (module_name, summary) in COMMANDS.items():
        module = importlib.import_module(f"functions.llm.commands.{module_name}")
        parser = subparsers.add_parser(name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
        module.configure(parser)
        parser.set_defaults(run=partial(_run, name, module.run))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="huginn", description="Train, import and run recurrent language models.", epilog=EXIT_CODES
    )
    add_commands(parser.add_subparsers(metavar="COMMAND", required=True))
    args = parser.parse_args(argv)
    exit_code: int = args.run(args)
    return exit_code


def _run(name: str, command: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    try:
        exit_code = command(args)
        # Here, and not at exit: a reader that has gone is noticed while it can still be answered.
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has what it wanted, as in `huginn generate | head -1`. Python would complain at exit without this.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        package = next((package for package in TRAINING_PACKAGES if (error.name or "").startswith(package)), None)
        if package is None:
            raise
        print(
            f"huginn: {name} needs {package}, which is not installed here: it comes with the train extra\n"
            "  pip install 'huginn[train]'",
            file=sys.stderr,
        )
        return 1
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
