"""`huginn models`: the checkpoints in a folder."""

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from functions.llm.commands.default_checkpoint import default_checkpoint

if TYPE_CHECKING:
    from functions.llm.inference.model_store import ModelDescription

EXAMPLES = """\
examples:
  huginn models
  huginn models ckpts --json
"""

BAD_INPUT = 3


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its arguments."""
    parser.description = "List the checkpoints that can be served and asked for by name; * marks the default."
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "folder", nargs="?", type=Path, metavar="DIR", help="the checkpoints' folder (that of $CKPT_PATH, or ckpts)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """List on standard output; exit codes: 0 done, 3 no such folder."""
    from functions.llm.checkpoints.checkpoint import CheckpointError
    from functions.llm.inference.model_store import checkpoint_names, describe_checkpoint

    try:
        default = default_checkpoint(os.environ).resolve()
    except CheckpointError as error:
        print(f"huginn: {error}", file=sys.stderr)
        return BAD_INPUT
    folder = default.parent if args.folder is None else args.folder
    if not folder.is_dir():
        print(f"huginn: {folder}: no such folder\n  make a checkpoint: huginn train --help", file=sys.stderr)
        return BAD_INPUT
    descriptions = []
    for name in checkpoint_names(folder):
        try:
            descriptions.append(describe_checkpoint(folder / name))
        except CheckpointError as error:
            print(f"huginn: left out: {error}", file=sys.stderr)
    default_name = default.name if folder.resolve() == default.parent else None
    if args.json:
        models = [asdict(model) | {"default": model.name == default_name} for model in descriptions]
        print(json.dumps({"models": models}, indent=2))
    else:
        for line in _table(descriptions, default_name):
            print(line)
    return 0


def _table(models: "list[ModelDescription]", default_name: str | None) -> list[str]:
    rows = [("name", "family", "parameters", "vocabulary", "tokenizer", "size")]
    for model in models:
        name = f"{model.name} *" if model.name == default_name else model.name
        size = f"{model.size_bytes / 1e6:.1f} MB"
        rows.append((name, model.family, f"{model.parameters:,}", f"{model.vocab_size:,}", model.tokenizer, size))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    numbers = {2, 3, 5}
    return [
        "  ".join(
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
