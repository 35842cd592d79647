"""`huginn serve`: one tier, in the foreground."""

import argparse
import importlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

from functions.llm.commands.default_checkpoint import BUNDLED
from local.access import access_environment
from local.checkpoint import checkpoint_to_serve
from local.errors import CommandError
from local.ports import LISTENERS, add_port_options, choose_ports, refuse_taken_port
from local.tiers import HTTP_PROTOCOL, LLM, TIERS, inner_host, tier_environment

# How long an answer that is being streamed may go on after the server was told to stop.
GRACE_S = 3
# How long the tier's own end may take after that: it keeps what was used, and sends its last spans.
CLOSING_S = 4

EXAMPLES = """\
examples:
  huginn serve llm --ckpt ckpts/muninn-char
  huginn serve backend --api-port 9082
  huginn serve llm --host 10.0.0.7 --open     for a backend elsewhere, with LLM_URL=http://10.0.0.7:8008/generate/stream
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = "Run one tier in the foreground. It finds the others at their ports on this machine."
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("tier", choices=[tier.name for tier in TIERS])
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    add_port_options(parser)
    parser.add_argument(
        "--ckpt", metavar="DIR", type=Path, help="the checkpoint served first (default: $CKPT_PATH, or the bundled one)"
    )
    parser.add_argument("--open", action="store_true", help="let the network reach the model, which asks for no key")
    parser.add_argument("--verbose", action="store_true", help="log every request")
    parser.add_argument("--end-with-parent", action="store_true", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal says otherwise, and give 0 then."""
    if args.end_with_parent:
        _end_with_parent()
    tier = next(tier for tier in TIERS if tier.name == args.tier)
    ports = choose_ports(args, os.environ)
    if tier is LLM and inner_host(args.host) != args.host and not args.open:
        raise CommandError(
            f"on --host {args.host} everybody who reaches the model could use it: it asks nobody for a key",
            "leave it on this machine: --host 127.0.0.1; or, where the network keeps others away, say so: --open",
            exit_code=2,
        )
    for listener in LISTENERS:
        if listener.name == tier.listener or (tier is LLM and listener.name == "metrics"):
            host = os.environ.get("METRICS_HOST", inner_host(args.host)) if listener.name == "metrics" else args.host
            refuse_taken_port(host, ports.of(listener), listener)
    # What the user has set stays, such as LLM_URL of a model elsewhere; a flag is newer than a variable.
    # The other tiers do without: none of them shall wait for a download.
    checkpoint = checkpoint_to_serve(args.ckpt, os.environ) if tier is LLM else BUNDLED
    local = tier_environment(args.host, ports, checkpoint)
    # One port for all tiers' metrics would be taken by the first; the others have a view of their own on the page.
    metrics_port = local["METRICS_PORT"] if tier is LLM else "0"
    # A terminal has people in front of it.
    logs = {"LOG_FORMAT": "text", "LOG_LEVEL": "warning"}
    if args.verbose and os.environ.get("LOG_LEVEL") != "debug":
        os.environ["LOG_LEVEL"] = "info"
    os.environ.update({**logs, **local, **os.environ, "CKPT_PATH": local["CKPT_PATH"], "METRICS_PORT": metrics_port})
    if tier is LLM:
        # Whoever publishes the others: this one is where it listens.
        os.environ["HUGINN_HOST"] = args.host
    else:
        os.environ.update(access_environment(args.host, os.environ))
    _refuse_bad_settings(tier.name)
    if tier is LLM:
        _refuse_bad_checkpoint(Path(local["CKPT_PATH"]))

    import uvicorn

    uvicorn.run(
        f"functions.{tier.name}.handler:app",
        host=args.host,
        port=getattr(ports, tier.listener),
        http=HTTP_PROTOCOL,
        # The tier's own, which it sets up when it is imported, is the server's, too.
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    return 0


def _refuse_bad_settings(tier: str) -> None:
    settings = importlib.import_module(f"functions.{tier}.settings")
    try:
        settings.Settings.from_env(os.environ)
    except settings.SettingsError as error:
        raise CommandError(str(error), "set the variable to what is expected, or unset it", exit_code=2) from error


def _refuse_bad_checkpoint(path: Path) -> None:
    # Where there is a checkpoint, the function itself answers 503 and tries again, for what is wrong with it may be
    # mended. Here somebody waits for it, and opening it twice is quick.
    from functions.llm.checkpoints.checkpoint import CheckpointError, open_checkpoint

    try:
        open_checkpoint(path)
    except CheckpointError as error:
        raise CommandError(
            str(error),
            "name another with --ckpt DIR or CKPT_PATH=DIR; `huginn train --help` tells how to make one",
            exit_code=3,
        ) from error


def _end_with_parent() -> None:
    """End this process when its standard input closes, which a parent's death does too, however it died."""

    def wait_for_the_end() -> None:
        # Not sys.stdin: the lock of its buffer, held by a waiting daemon thread, would abort the interpreter's exit.
        while os.read(sys.stdin.fileno(), 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_S + CLOSING_S)
        os._exit(1)

    threading.Thread(target=wait_for_the_end, daemon=True, name="end with parent").start()
