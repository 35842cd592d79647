"""The `huginn` command: what runs on one machine, and everything that the llm function's own command has."""

import argparse
import sys
from collections.abc import Sequence

from functions.llm.cli import add_commands
from local import keys, package, serve, up
from local.deploy import command as deploy
from local.deploy import destroy
from local.errors import CommandError
from local.logs import command as logs

EXIT_CODES = "exit codes: 0 ok, 1 failed, 2 wrong use, 3 bad input, 4 a service or port cannot be had, 130 Ctrl-C"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code."""
    parser = argparse.ArgumentParser(
        prog="huginn", description="Train, import and serve recurrent language models.", epilog=EXIT_CODES
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command, summary in (
        ("up", up, "start all tiers on this machine, until Ctrl-C"),
        ("serve", serve, "run one tier in the foreground"),
        ("keys", keys, "make, list and revoke API keys"),
        ("logs", logs, "show what the tiers have said, here, in containers or on AWS"),
        ("package", package, "build the web tiers' zips for AWS Lambda"),
        ("deploy", deploy, "put all tiers on AWS, and look whether they stream"),
        ("destroy", destroy, "delete what was deployed, after a question"),
    ):
        subparser = commands.add_parser(name, help=summary)
        command.configure(subparser)
        subparser.set_defaults(run=command.run)
    add_commands(commands)
    args = parser.parse_args(argv)
    try:
        exit_code: int = args.run(args)
    except CommandError as error:
        print(f"huginn: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
