"""A function on the emulator, in the foreground: `python -m local.emulator --port 8082 COMMAND...`; Ctrl-C ends it."""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence

from local.emulator.emulator import Emulator

# Each is kept with all of its answer, and nobody looks at them here.
KEPT_INVOCATIONS = 8

EXAMPLE = """\
example:
  python -m local.emulator --port 8082 python -m functions.runtime functions.backend.handler.app
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve one function's URL until a signal comes and give 0 then, or 1 where nothing can listen there."""
    options = _parser().parse_args(arguments)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    emulator = Emulator(
        options.command,
        os.environ,
        max_environments=options.max_environments,
        mode=options.mode,
        timeout_s=options.timeout_s,
        snap_start=options.snap_start,
        name=options.name,
        host=options.host,
        port=options.port,
        keeps=KEPT_INVOCATIONS,
        log=sys.stdout.buffer,
    )
    try:
        with emulator:
            # The first request finds it warm.
            emulator.start_environment()
            print(f"{options.name}: {emulator.url}", file=sys.stderr, flush=True)
            stopped.wait()
    except OSError as error:
        print(f"{options.host}:{options.port}: {error.strerror or error}; choose another --port", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m local.emulator",
        description="Run a function as AWS Lambda does: one process for each request at a time, behind a Function URL.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="its port (default: a free one)")
    parser.add_argument("--name", default="function", help="the function's name (default: %(default)s)")
    parser.add_argument("--max-environments", type=int, default=2, help="processes at once (default: %(default)s)")
    parser.add_argument("--timeout-s", type=float, default=900.0, help="of one invocation (default: %(default)s)")
    parser.add_argument("--mode", choices=["streaming", "buffered"], default="streaming", help="the URL's InvokeMode")
    parser.add_argument("--snap-start", action="store_true", help="as if a snapshot were made of each process")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what one environment runs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
