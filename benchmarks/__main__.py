"""`python -m benchmarks`: every figure in the README comes from here."""

import argparse
import importlib
import json
import sys
from importlib.util import find_spec
from pathlib import Path

BENCHMARKS = {
    "train_speed": "training tokens per second of the predecessor's LSTM, in Huginn and in torch (needs torch)",
    "time_to_loss": "minutes to the LSTM's best validation loss, by lstm and by mingru",
    "decode_speed": "decoding tokens per second: the HTTP stream, and the predecessor's loop (needs torch)",
}
EXAMPLES = """\
examples:
  make bench ARGS='--text shakespeare.txt --predecessor lstm.pt'     all of them: half an hour on two cores
  make bench ARGS=train_speed
  make bench ARGS='time_to_loss --text shakespeare.txt'
  .venv/bin/python -m pip install torch==2.13.0      what the peers need; no test does
"""


def main() -> int:
    """Run the benchmarks that are named, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="benchmarks:\n"
        + "".join(f"  {name:13} {text}\n" for name, text in BENCHMARKS.items())
        + "\n"
        + EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which (all)")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="turns of each contender (7)")
    parser.add_argument("--text", type=Path, metavar="FILE", help="the text to learn, for time_to_loss")
    parser.add_argument("--predecessor", type=Path, metavar="FILE", help="its .pt checkpoint, for decode_speed")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"), metavar="DIR", help="folder of the JSON")
    args = parser.parse_args()
    unknown = set(args.names) - BENCHMARKS.keys()
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    chosen = args.names or list(BENCHMARKS)
    # Said before the first of them begins: each takes minutes.
    if "time_to_loss" in chosen and args.text is None:
        parser.error("time_to_loss needs a text to learn: --text FILE")
    if "decode_speed" in chosen and args.predecessor is None:
        parser.error("decode_speed needs a checkpoint of the predecessor's: --predecessor FILE.pt")
    if {"train_speed", "decode_speed"} & set(chosen) and find_spec("torch") is None:
        parser.error("the peer is not installed: .venv/bin/python -m pip install torch==2.13.0")
    for name in chosen:
        print(f"\n{name}: {BENCHMARKS[name]}\n", file=sys.stderr)
        report = importlib.import_module(f"benchmarks.{name}").run(args)
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / f"{name}.json").write_text(json.dumps(report.as_json(), indent=2) + "\n")
        print(report.as_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
