"""`huginn generate`: a text's continuation, on the terminal as it is made."""

import argparse
import io
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from functions.llm.commands.default_checkpoint import default_checkpoint

if TYPE_CHECKING:
    from functions.llm.inference.generation import Generation

EXAMPLES = """\
examples:
  huginn generate --seed 'ROMEO:' --chars 300
  huginn generate --ckpt ckpts/mixed --prompt 'Once upon a time' --temp 0.7 --top-p 0.95 --stop $'\\n\\n'
  huginn generate --seed 'ROMEO:' --temp 0 --json
"""

WRONG_USE, BAD_INPUT, INTERRUPTED = 2, 3, 130

# A byte is the least that a token brings, and UTF-8 has at most four to a character.
MAX_TOKENS_PER_CHAR = 4

# option -> (field of SamplingOptions, type, help); their ranges are checked where they are used.
SAMPLING = {
    "--temp": ("temperature", float, "0 is greedy (0.8)"),
    "--top-k": ("top_k", int, "only the k likeliest tokens (0: off)"),
    "--top-p": ("top_p", float, "only the likeliest tokens that reach this probability together (1: off)"),
    "--min-p": ("min_p", float, "only tokens this many times as likely as the likeliest (0: off)"),
    "--repetition-penalty": ("repetition_penalty", float, "above 1, what stood before is less likely (1: off)"),
    "--presence-penalty": ("presence_penalty", float, "above 0, what was generated is less likely (0: off)"),
    "--frequency-penalty": ("frequency_penalty", float, "the same, for each time (0: off)"),
    "--penalty-decay": ("penalty_decay", float, "how much of the counts stays from token to token (1: all)"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its arguments."""
    parser.description = "Go on with a text, by a checkpoint's model."
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--ckpt", type=Path, metavar="DIR", help="the checkpoint ($CKPT_PATH, or the bundled one)")
    parser.add_argument(
        "--seed", "--prompt", dest="prompt", required=True, metavar="TEXT", help="the text to go on from"
    )
    parser.add_argument("--chars", type=int, default=500, metavar="N", help="characters to generate (500)")
    for option, (field, kind, text) in SAMPLING.items():
        names = (option, "--temperature") if option == "--temp" else (option,)
        parser.add_argument(*names, dest=field, type=kind, metavar="K" if kind is int else "X", help=text)
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before this text; may be given again"
    )
    parser.add_argument("--random-seed", type=int, metavar="N", help="with the same one the text is the same (random)")
    parser.add_argument("--echo", action="store_true", help="print the prompt first")
    parser.add_argument("--json", action="store_true", help="print one JSON object with usage and timing at the end")


def run(args: argparse.Namespace) -> int:
    """Generate on standard output; exit codes: 0 done, 2 an option out of range, 3 no such model, 130 Ctrl-C."""
    from functions.llm.checkpoints.checkpoint import CheckpointError, load_checkpoint
    from functions.llm.inference.errors import InvalidOptionError, InvalidPromptError
    from functions.llm.inference.generation import Generation, GenerationRequest
    from functions.llm.inference.sampling import MAX_SEED, SamplingOptions
    from functions.llm.inference.served_model import ServedModel

    if args.chars < 1:
        return _fail(f"--chars is {args.chars}; it must be at least 1", WRONG_USE)
    given = {field: value for field, _, _ in SAMPLING.values() if (value := getattr(args, field)) is not None}
    try:
        request = GenerationRequest(
            prompt=args.prompt,
            max_tokens=MAX_TOKENS_PER_CHAR * args.chars,
            sampling=SamplingOptions(**given),
            seed=secrets.randbelow(MAX_SEED + 1) if args.random_seed is None else args.random_seed,
            stop=tuple(args.stop),
        )
        model = ServedModel.of(load_checkpoint(args.ckpt or default_checkpoint(os.environ)))
        generation = Generation(model, request)
    except InvalidOptionError as error:
        return _fail(str(error), WRONG_USE)
    except InvalidPromptError as error:
        return _fail(str(error), BAD_INPUT)
    except CheckpointError as error:
        return _fail(f"{error}\n  see what there is: huginn models", BAD_INPUT)
    try:
        _generate(generation, args)
    except KeyboardInterrupt:
        # The text so far stands; the shell's prompt gets a line of its own.
        print(file=sys.stderr)
        return INTERRUPTED
    return 0


def _generate(generation: "Generation", args: argparse.Namespace) -> None:
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper):
        # A terminal of another encoding shows "?" for what it lacks, instead of ending the text.
        out.reconfigure(errors="replace")
    continuation = _Continuation(generation, args.chars)
    if args.json:
        text = "".join(continuation.pieces())
        print(json.dumps(continuation.report(args.prompt if args.echo else "", text), ensure_ascii=False), file=out)
        return
    _write(out, args.prompt if args.echo else "")
    last = ""
    for piece in continuation.pieces():
        _write(out, piece)
        last = piece[-1:] or last
    if out.isatty() and last != "\n":
        _write(out, "\n")


class _Continuation:
    """A text of at most so many characters, and what it took."""

    def __init__(self, generation: "Generation", chars: int) -> None:
        self._generation = generation
        self._chars = chars
        self._tokens = 0
        self._finish_reason = "length"
        self._began = time.perf_counter()
        self._first_token_s = 0.0
        self._seconds = 0.0

    def pieces(self) -> Iterator[str]:
        """Return the text as it comes."""
        from functions.llm.inference.batch import generate
        from functions.llm.inference.generation import Token

        missing = self._chars
        for batch in generate(self._generation):
            piece = ""
            for event in batch:
                if not isinstance(event, Token):
                    self._finish_reason = event.finish_reason
                elif len(piece) < missing:
                    self._tokens += 1
                    piece += event.text
            self._seconds = time.perf_counter() - self._began
            if self._tokens and not self._first_token_s:
                self._first_token_s = self._seconds
            yield piece[:missing]
            missing -= len(piece)
            if missing <= 0:
                self._finish_reason = "length"
                return

    def report(self, echoed: str, text: str) -> dict[str, Any]:
        """Return what there is to say about the text."""
        prompt_tokens = len(self._generation.prompt)
        after_first_s = self._seconds - self._first_token_s
        return {
            "model": self._generation.model.name,
            "text": echoed + text,
            "finish_reason": self._finish_reason,
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": self._tokens,
                "total_tokens": prompt_tokens + self._tokens,
            },
            "seed": self._generation.request.seed,
            "first_token_s": round(self._first_token_s, 4),
            "seconds": round(self._seconds, 4),
            # Without the first token: it waited for the prompt, and for the compiler.
            "tokens_per_s": round((self._tokens - 1) / after_first_s, 1) if after_first_s > 0 else None,
        }


def _write(out: TextIO, text: str) -> None:
    out.write(text)
    out.flush()


def _fail(message: str, exit_code: int) -> int:
    print(f"huginn: {message}", file=sys.stderr)
    return exit_code
