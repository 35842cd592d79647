"""`huginn logs`: what the tiers have said, one request at a time if wished, wherever they run."""

import argparse
import os
import re
import sys
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta

from local.errors import CommandError
from local.logs.kept_log import is_running, logs_folder, runs
from local.logs.log_line import LogLine
from local.logs.sources import Batches, Wanted, cloudwatch_lines, compose_is_running, compose_lines, kept_lines

EXAMPLES = """\
examples:
  huginn logs -f
  huginn logs --request-id 5f0c2a9e --json
  huginn logs --compose --tier llm --since 10m
  huginn logs --stage prod --since 2h

Every answer has its request's id in the header x-request-id. Without --compose and --stage: of the `huginn up` that
runs, else of compose's containers if there are any, else of the last `huginn up`.
"""

_AGE = re.compile(r"([0-9]{1,9})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# As the tiers take them from a header.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")
# All that CloudWatch has may be very much, and reading it costs money.
_CLOUDWATCH_SINCE = timedelta(hours=1)


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = "Show the tiers' logs in one, by time: what `huginn up`, compose or AWS has kept of them."
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what is still to come, until Ctrl-C")
    parser.add_argument("--request-id", metavar="ID", help="only of this request")
    parser.add_argument(
        "--tier", action="append", metavar="T", help="only of frontend, backend or llm; may be repeated"
    )
    parser.add_argument("--since", metavar="TIME", help="10m, 2h, 1d, or a time such as 2026-11-23T02:00Z")
    parser.add_argument("--json", action="store_true", help="the lines as they were written")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--compose", action="store_true", help="of the containers of local/compose.yml")
    where.add_argument("--stage", metavar="S", help="of the stack huginn-S on AWS; of the last hour, without --since")
    parser.add_argument("--region", help="of the stack (default: AWS_REGION, or the profile's)")
    parser.add_argument("--profile", help="of the AWS configuration (default: AWS_PROFILE)")
    parser.add_argument("--endpoint-url", metavar="URL", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Show the lines, and give 0 at their end."""
    if args.request_id is not None and not _REQUEST_ID.fullmatch(args.request_id):
        raise CommandError(f"--request-id {args.request_id!r} is no request's id", "it stands in x-request-id", 2)
    now = datetime.now(UTC)
    wanted = Wanted(args.follow, None if args.since is None else since(args.since, now), args.request_id)
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    try:
        with closing(_source(args, wanted, now)) as batches:
            for batch in batches:
                for line in chosen(batch, wanted, args.tier):
                    print(line.to_json() if args.json else line.to_terminal(colour=colour))
                sys.stdout.flush()
    except BrokenPipeError:
        # Who reads us has seen enough. What is still to be written goes nowhere, instead of into a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def since(text: str, now: datetime) -> datetime:
    """Give the point in time that an age or a time stands for; a time without a zone is this machine's.

    Raises:
        CommandError: it is neither.
    """
    try:
        if age := _AGE.fullmatch(text):
            return now - timedelta(seconds=int(age[1]) * _SECONDS[age[2]])
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise CommandError(
            f"--since {text!r} is no time",
            "expected: an age such as 10m, 2h or 1d, or a time such as 2026-11-23T02:00Z",
            2,
        ) from error


def chosen(batch: Iterable[LogLine], wanted: Wanted, tiers: list[str] | None) -> list[LogLine]:
    """Give the lines that are wanted, by time."""
    return sorted(
        (
            line
            for line in batch
            if (wanted.since is None or line.time >= wanted.since)
            and (wanted.request_id is None or line.belongs_to(wanted.request_id))
            and (tiers is None or line.tier in tiers)
        ),
        key=lambda line: line.time,
    )


def _source(args: argparse.Namespace, wanted: Wanted, now: datetime) -> "Batches":
    if args.stage is not None:
        from local.deploy.account import find_account
        from local.deploy.command import refuse_bad_stage, stack_name

        refuse_bad_stage(args.stage)
        client = find_account(args.region, args.profile, args.endpoint_url).client("logs")
        asked = Wanted(wanted.follow, wanted.since or now - _CLOUDWATCH_SINCE, wanted.request_id)
        return cloudwatch_lines(client, stack_name(args.stage), asked)
    folder = logs_folder(os.environ)
    known = runs(folder)
    if args.compose or (not (known and is_running(known[-1])) and compose_is_running()):
        return compose_lines(wanted)
    if not (known or args.follow):
        raise CommandError(
            "there are no logs on this machine: no `huginn up` has run here, and no containers do",
            "start the tiers: huginn up; or look elsewhere: --stage prod",
            exit_code=3,
        )
    return kept_lines(folder, wanted)
