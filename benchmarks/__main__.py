"""`python -m benchmarks`: every figure in the README comes from here."""

import argparse
import importlib
import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from benchmarks.report import Findings
from functions.llm.native.build import LIBRARY as KERNEL

# As `peers` in pyproject.toml has them; no test and nothing that serves needs them.
PEERS = {
    "torch": "torch==2.13.0",
    "onnx": "onnx==1.23.2",
    "onnxruntime": "onnxruntime==1.32.0",
    "gguf": "gguf==0.19.0",
    "xllamacpp": "xllamacpp==2026.10.11549",
}


@dataclass(frozen=True)
class Benchmark:
    """What the command line knows of a benchmark, whose module has its name and a function ``run(args)``.

    Args:
        measures: in one line.
        peers: the packages that it needs, keys of PEERS.
        files: the options that it cannot do without.
        kernel: whether it needs the compiled kernel.
    """

    measures: str
    peers: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    kernel: bool = False

    def lacks(self, args: argparse.Namespace) -> Iterator[str]:
        """Yield what must be installed or given before it can run."""
        if missing := [PEERS[peer] for peer in self.peers if find_spec(peer) is None]:
            yield f"its peers are not installed: .venv/bin/python -m pip install {' '.join(missing)}"
        for option in self.files:
            if getattr(args, option) is None:
                yield f"it needs --{option} FILE"
        if self.kernel and not KERNEL.exists():
            yield "the kernel is not compiled: .venv/bin/python -m functions.llm.native.build"


BENCHMARKS = {
    "train_speed": Benchmark(
        "training tokens per second of the predecessor's LSTM, in Huginn and in torch", peers=("torch",)
    ),
    "time_to_loss": Benchmark("minutes to the LSTM's best validation loss, by lstm and by mingru", files=("text",)),
    "decode_speed": Benchmark(
        "tokens per second of one stream over HTTP, against the predecessor's own loop in torch",
        peers=("torch",),
        files=("predecessor",),
    ),
    "step_speed": Benchmark(
        "tokens per second of one text: Huginn, torch and onnxruntime over the same weights",
        peers=("torch", "onnx", "onnxruntime"),
        kernel=True,
    ),
    "batch_speed": Benchmark(
        "tokens per second of 1, 4 and 16 texts at once, in Huginn and in torch", peers=("torch",)
    ),
    "token_overhead": Benchmark("microseconds a token that HTTP, the event stream and the engine's loop add"),
    "runtime_overhead": Benchmark(
        "microseconds to the first chunk, and for each, that functions/runtime takes on Lambda, against uvicorn"
    ),
    "cold_start": Benchmark(
        "milliseconds from start to first token over HTTP, against torch, onnxruntime, llama.cpp and plain Flax",
        peers=("torch", "onnx", "onnxruntime", "gguf", "xllamacpp"),
    ),
    "http_load": Benchmark(
        "1 to 128 streams over HTTP at once: tokens per second, and who waits how long", peers=("torch",)
    ),
    "web_load": Benchmark("milliseconds that frontend and backend add to a token, with 200 streams at once"),
}
EXAMPLES = """\
examples:
  make bench                                       all that lack nothing here
  make bench ARGS=train_speed
  make bench ARGS='time_to_loss --text shakespeare.txt --out results'
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks that are named, or all that can be run."""
    args = _parser().parse_args(arguments)
    if unknown := set(args.names) - BENCHMARKS.keys():
        _refuse(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    # Said before the first of them begins: each takes minutes.
    lacking = {name: "; ".join(BENCHMARKS[name].lacks(args)) for name in args.names or BENCHMARKS}
    for name, lack in lacking.items():
        if lack and args.names:
            _refuse(f"{name}: {lack}")
        if lack:
            print(f"leaving out {name}: {lack}", file=sys.stderr)
    for name in (name for name, lack in lacking.items() if not lack):
        print(f"\n{name}: {BENCHMARKS[name].measures}\n", file=sys.stderr)
        findings: Findings = importlib.import_module(f"benchmarks.{name}").run(args)
        _write(findings, args.out, name)
        print(findings.as_text())
    return 0


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, BENCHMARKS))
    lines = [f"  {name:{width}}  {benchmark.measures}" for name, benchmark in BENCHMARKS.items()]
    peers = f"peers, for most of them: .venv/bin/python -m pip install {' '.join(PEERS.values())}"
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="\n".join(["benchmarks:", *lines, "", EXAMPLES, peers]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which (all that lack nothing)")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="turns of each contender (7)")
    parser.add_argument("--text", type=Path, metavar="FILE", help="the text to learn, for time_to_loss")
    parser.add_argument("--predecessor", type=Path, metavar="FILE", help="its .pt checkpoint, for decode_speed")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/benchmarks"),
        metavar="DIR",
        help="where the tables go: NAME.md, NAME.json and NAME.svg (build/benchmarks)",
    )
    return parser


def _refuse(message: str) -> NoReturn:
    _parser().error(message)


def _write(findings: Findings, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    everything = {"command": command, **findings.as_json()}
    (folder / f"{name}.json").write_text(json.dumps(everything, indent=2) + "\n", "utf-8")
    (folder / f"{name}.md").write_text(findings.as_text(), "utf-8")
    (folder / f"{name}.svg").write_text(findings.as_svg(), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
