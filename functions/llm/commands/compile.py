"""`huginn compile`: the programs of a checkpoint, compiled before they are needed."""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from functions.llm.commands.default_checkpoint import default_checkpoint

EXAMPLES = """\
examples:
  huginn compile
  huginn compile ckpts/mine --isa native avx2
  CACHE_PATH=/opt/huginn-cache huginn compile /ckpts/mine     in an image: serve with the same CACHE_PATH
"""

BAD_INPUT = 3
# The names of functions.llm.inference.compile_ahead, which --help must not wait for.
CHOICES = ("native", "avx512", "avx2")


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its arguments."""
    parser.description = (
        "Compile what serving a checkpoint needs, so that a server's first token waits for no compiler. The programs "
        "go to the cache (CACHE_PATH), not to the checkpoint; a server takes the best set that its processor can run, "
        "and compiles as it goes where there is none. Weights may change: the programs fit every checkpoint of the "
        "same family and sizes. They must be made anew after an update of Huginn."
    )
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "ckpt", nargs="?", type=Path, metavar="DIR", help="the checkpoint ($CKPT_PATH, or the bundled one)"
    )
    parser.add_argument(
        "--isa",
        nargs="+",
        choices=CHOICES,
        default=["native"],
        metavar="SET",
        help="instruction sets: native is all that this machine has, avx2 runs on every x86-64 since 2015 (native)",
    )
    parser.add_argument("--json", action="store_true", help="report as JSON")


def run(args: argparse.Namespace) -> int:
    """Compile one set after the other, report on standard output; 1 if one failed, 2 wrong use, 3 bad checkpoint."""
    from functions.llm.checkpoints.checkpoint import CheckpointError, load_checkpoint
    from functions.llm.settings import Settings, SettingsError

    try:
        checkpoint = args.ckpt or default_checkpoint(os.environ)
        folder = Settings.from_env(os.environ).executables_path
        load_checkpoint(checkpoint)
    except SettingsError as error:
        return _fail(str(error), "set the variable to what is expected, or unset it", 2)
    except CheckpointError as error:
        return _fail(str(error), "list the checkpoints: huginn models", BAD_INPUT)
    if folder is None:
        return _fail("there is no home to keep a cache in", "name a folder: CACHE_PATH=DIR huginn compile", 2)
    if lacking := _lacking(args.isa):
        return _fail(lacking, "compile for what is here: huginn compile --isa native", 2)
    reports = []
    for name in dict.fromkeys(args.isa):
        if (report := _compile(checkpoint, folder, name)) is None:
            return _fail(f"{name} could not be compiled; the reason stands above", "serving works without", 1)
        reports.append(report)
    if args.json:
        print(json.dumps({"checkpoint": str(checkpoint), "sets": reports}, indent=2))
    else:
        for report in reports:
            print(
                "{instruction_set}: {programs} programs, {size_bytes:,} bytes, {seconds} s\n  {path}".format_map(report)
            )
        print(f"next: huginn serve llm --ckpt {shlex.quote(str(checkpoint))}")
    return 0


def _lacking(names: list[str]) -> str | None:
    """Why this machine cannot compile for one of the instruction sets, or None."""
    from functions.llm.inference.compile_ahead import INSTRUCTION_SETS
    from functions.llm.inference.cpu_features import cpu_features

    if platform.machine() not in ("x86_64", "AMD64"):
        return f"this is {platform.machine()}, and programs are compiled ahead for x86-64 only"
    for name in names:
        if missing := INSTRUCTION_SETS[name].needs - cpu_features():
            return f"{name} needs {', '.join(sorted(missing))}, which this processor lacks"
    return None


def _compile(checkpoint: Path, folder: Path, instruction_set: str) -> dict[str, Any] | None:
    """Compile one set in a process of its own, and return what there is to report, or None if that failed."""
    from functions.llm.inference.compile_ahead import compile_command, compile_environment

    names: list[str] = []
    started, show = time.monotonic(), sys.stderr.isatty()
    with subprocess.Popen(  # noqa: S603 - this Python, this package, no shell
        compile_command(checkpoint, folder, instruction_set),
        env=compile_environment(instruction_set, os.environ),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            names.append(line.strip())
            if show:
                print(f"\r\x1b[K{instruction_set}: {names[-1]}", end="", file=sys.stderr, flush=True)
    if show:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    if process.returncode != 0:
        return None
    *programs, path = names
    return {
        "instruction_set": instruction_set,
        "programs": len(programs),
        "size_bytes": sum(file.stat().st_size for file in Path(path).iterdir()),
        "seconds": round(time.monotonic() - started, 1),
        "path": path,
    }


def _fail(what: str, remedy: str, exit_code: int) -> int:
    print(f"huginn: {what}\n  {remedy}", file=sys.stderr)
    return exit_code
