"""`huginn up`: all tiers on this machine, without containers, until Ctrl-C."""

import argparse
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType

from local.access import access_environment
from local.checkpoint import checkpoint_to_serve
from local.console import Console
from local.errors import CommandError
from local.logs.kept_log import KeptLog, logs_folder
from local.logs.log_line import LogLine
from local.ports import LISTENERS, Listener, Ports, add_port_options, choose_ports, refuse_taken_port
from local.readiness import why_not_ready
from local.running_tier import RunningTier
from local.tiers import LLM, TIERS, Tier, base_url, inner_host, tier_environment

# Over the grace that a tier gives to its streams, and under the ten seconds that Ctrl-C may take.
STOP_WITHIN_S = 7.0
POLL_EVERY_S = 0.1
# Exit codes with which `huginn serve` refuses: a setting, a checkpoint, a port.
REFUSALS = (2, 3, 4)

EXAMPLES = """\
examples:
  huginn up
  huginn up --ckpt ckpts/mine --page-port 9000
  HUGINN_API_PORT=9082 huginn up
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = "Start the page, the API, the model and its metrics on this machine, until Ctrl-C."
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--host", default="127.0.0.1", help="where page and API listen (default: %(default)s)")
    add_port_options(parser)
    parser.add_argument(
        "--ckpt", metavar="DIR", type=Path, help="the model served first (default: $CKPT_PATH, or the bundled one)"
    )
    parser.add_argument(
        "--ready-timeout",
        type=float,
        default=300.0,
        metavar="S",
        help="how long starting may take (default: %(default)g s)",
    )
    parser.add_argument("--verbose", action="store_true", help="show every request here, and not only in `huginn logs`")


def run(args: argparse.Namespace) -> int:
    """Run all tiers until a signal, and give 0 then: to be stopped is how this command ends."""
    ports = choose_ports(args, os.environ)
    checkpoint = checkpoint_to_serve(args.ckpt, os.environ)
    if not (checkpoint / "config.json").is_file():
        raise CommandError(
            f"there is no checkpoint at {checkpoint}: it has no config.json",
            "name another with --ckpt DIR or CKPT_PATH=DIR; `huginn train --help` tells how to make one",
            exit_code=3,
        )
    for listener in LISTENERS:
        refuse_taken_port(host_of(listener, args.host), ports.of(listener), listener)

    logs = {"LOG_LEVEL": "info", **os.environ, "LOG_FORMAT": "json", "PYTHONUNBUFFERED": "1"}
    access = access_environment(args.host, os.environ)
    environ = {**logs, **tier_environment(args.host, ports, checkpoint), **access}
    console = Console()
    with (
        kept_log(console) as kept,
        counted_signals() as signals,
        started_tiers(args, ports, environ, hear(args, console, kept), console, signals) as tiers,
    ):
        if wait_until_ready(tiers, readiness_urls(args.host, ports), args.ready_timeout, console, signals):
            print(announcement(args.host, ports, checkpoint, with_keys=access["HUGINN_AUTH"] == "on"), flush=True)
            watch(tiers, signals)
    return 0


@contextmanager
def kept_log(console: Console) -> Iterator[KeptLog | None]:
    """Keep what the tiers say for `huginn logs`; where nothing can be kept, say so and go on."""
    folder = logs_folder(os.environ)
    log: KeptLog | None = None
    try:
        log = KeptLog(folder)
    except OSError as error:
        console.log(f"huginn: the log is not kept: {folder}: {error.strerror}")
    with log or nullcontext():
        yield log


def hear(args: argparse.Namespace, console: Console, kept: KeptLog | None) -> Callable[[LogLine], None]:
    """Give what is done with a line: all are kept, and the terminal has what a person should see."""
    as_json = os.environ.get("LOG_FORMAT") == "json"

    def on_line(line: LogLine) -> None:
        if kept is not None:
            kept.write(line.to_json())
        if args.verbose or line.is_urgent:
            for part in [line.to_json()] if as_json else line.text(whole=True).split("\n"):
                console.log(part if as_json else f"{line.tier:<8} | {part}")

    return on_line


class Signals:
    """How often we were asked to stop. A count, because an exception would strike at whatever line it finds."""

    def __init__(self) -> None:
        """Begin with none."""
        self.count = 0

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """Count one."""
        self.count += 1


@contextmanager
def counted_signals() -> Iterator[Signals]:
    """Take over Ctrl-C, the polite kill and the closing of the terminal."""
    signals = Signals()
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, signals.on_signal) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def started_tiers(
    args: argparse.Namespace,
    ports: Ports,
    environ: Mapping[str, str],
    on_line: Callable[[LogLine], None],
    console: Console,
    signals: Signals,
) -> Iterator[list[RunningTier]]:
    """Start them all; at the end, whatever ended it, none of them is left."""
    tiers: list[RunningTier] = []
    try:
        for tier in TIERS:
            # One at a time, so that the first is known, and stopped, if the second cannot be started.
            tiers.append(RunningTier(tier.name, serve_command(tier, args, ports), environ, on_line))  # noqa: PERF401
        yield tiers
    finally:
        console.progress("huginn: stopping")
        stop(tiers, signals)
        console.progress("")


def serve_command(tier: Tier, args: argparse.Namespace, ports: Ports) -> list[str]:
    """Give the command that serves one tier and ends with us."""
    host = inner_host(args.host) if tier is LLM else args.host
    command = [sys.executable, "-m", "local.cli", "serve", tier.name, "--end-with-parent", "--host", host]
    for listener in LISTENERS:
        command += [listener.option, str(ports.of(listener))]
    return [*command, "--verbose"] if args.verbose else command


def host_of(listener: Listener, host: str) -> str:
    """Give the address on which that one listens: what asks nobody for a key stays on this machine."""
    return inner_host(host) if listener.name in ("llm", "metrics") else host


def readiness_urls(host: str, ports: Ports) -> dict[str, str]:
    """Give, for everything that listens, the address that answers 200 once it is ready."""
    bases = {listener.name: base_url(host_of(listener, host), ports.of(listener)) for listener in LISTENERS}
    return {"metrics": bases["metrics"] + "/metrics"} | {tier.name: bases[tier.listener] + "/readyz" for tier in TIERS}


def wait_until_ready(
    tiers: list[RunningTier], urls: Mapping[str, str], timeout_s: float, console: Console, signals: Signals
) -> bool:
    """Give True once all answer, False if we were asked to stop before.

    They are asked one after another: none is ready before the one that it stands on, and each question to a tier in
    front would be a warning in its log that the tier behind is not there yet.

    Raises:
        CommandError: a tier has ended, or one still does not answer after `timeout_s`.
    """
    started = time.monotonic()
    for name, url in urls.items():
        while (reason := why_not_ready(url)) is not None:
            if signals.count:
                return False
            raise_if_one_ended(tiers)
            waited_s = time.monotonic() - started
            if waited_s > timeout_s:
                raise CommandError(
                    f"{name} is not ready after {timeout_s:g} s: {reason}",
                    "look at the log above, or give it longer: --ready-timeout 600",
                    exit_code=4,
                )
            console.progress(f"huginn: waiting for {name} ({waited_s:.0f} s)")
            time.sleep(POLL_EVERY_S)
    console.progress("")
    return not signals.count


def watch(tiers: list[RunningTier], signals: Signals) -> None:
    """Return when asked to stop.

    Raises:
        CommandError: a tier has ended by itself.
    """
    while not signals.count:
        raise_if_one_ended(tiers)
        time.sleep(POLL_EVERY_S)


def raise_if_one_ended(tiers: list[RunningTier]) -> None:
    """Raise CommandError with the last of its log if a tier is not alive: the others cannot do without it."""
    for tier in tiers:
        if not tier.is_alive:
            raise CommandError(
                f"{tier.name} {tier.how_it_ended()}",
                "the other tiers were stopped; start all again: huginn up",
                # What the tier itself could put into words keeps its class.
                exit_code=code if (code := tier.wait()) in REFUSALS else 1,
            )


def stop(tiers: list[RunningTier], signals: Signals) -> None:
    """End all of them: politely at first, and by force after a while or at the next signal."""
    already = signals.count
    for tier in tiers:
        tier.ask_to_stop()
    deadline = time.monotonic() + STOP_WITHIN_S
    while any(tier.is_alive for tier in tiers) and time.monotonic() < deadline and signals.count <= already:
        time.sleep(POLL_EVERY_S / 2)
    for tier in tiers:
        tier.kill()
        tier.close()


def _program() -> str:
    """Give what a shell finds this program by; `make up` starts it where none does."""
    return "huginn" if shutil.which("huginn") else os.path.relpath(Path(sys.executable).with_name("huginn"))


def announcement(host: str, ports: Ports, checkpoint: Path, *, with_keys: bool) -> str:
    """Give the addresses, and one command to try."""
    api = base_url(host, ports.api)
    body = '{"prompt": "ROMEO:", "max_tokens": 200}'
    # Others reach this address.
    make_a_key = f"  HUGINN_KEY=$({_program()} keys new me)\n" if with_keys else ""
    key = ' -H "authorization: Bearer $HUGINN_KEY"' if with_keys else ""
    ask = f"curl -N {api}/api/llm/stream{key} -H 'content-type: application/json' -d {shlex.quote(body)}"
    return f"""Huginn is up, with {checkpoint.name}.

  page     {base_url(host, ports.page)}
  API      {api}
  model    {base_url(inner_host(host), ports.llm)}
  metrics  {base_url(inner_host(host), ports.metrics)}/metrics

Try it:

{make_a_key}  {ask}

Ctrl-C stops it."""
