"""Where logs come from: a `huginn up` on this machine, the containers of compose, or AWS."""

import queue
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from local.errors import CommandError
from local.logs.kept_log import POLL_S, follow_latest, read_run, runs
from local.logs.log_line import LogLine

COMPOSE_FILE = Path(__file__).parents[1] / "compose.yml"
TIERS = ("frontend", "backend", "llm")
# CloudWatch has a line some seconds after it was written, and not in order.
_CLOUDWATCH_LATE = timedelta(seconds=15)
_CLOUDWATCH_POLL_S = 2.0
# Compose moves a terminal's cursor about also where there is no terminal.
_CONTROL = re.compile(r"^(\x1b\[[0-9;]*[A-Za-z])+")

Batches = Generator[list[LogLine], None, None]
"""Lines in batches, each in any order; with `follow` without end."""


@dataclass(frozen=True)
class Wanted:
    """What is looked for: sources may leave other lines out, and need not.

    Args:
        follow: whether to go on with what is still to come.
        since: the earliest line; None for all.
        request_id: of the one request; None for all.
    """

    follow: bool
    since: datetime | None
    request_id: str | None


def kept_lines(folder: Path, wanted: Wanted) -> Batches:
    """Yield what the tiers of the latest `huginn up` have said."""
    if wanted.follow:
        for lines in follow_latest(folder):
            yield [_parsed(line) for line in lines]
    else:
        yield [_parsed(line) for line in read_run(runs(folder)[-1])]


def compose_lines(wanted: Wanted, file: Path = COMPOSE_FILE) -> Batches:
    """Yield what the containers of the compose project have said.

    Raises:
        CommandError: there is no docker, or it says no.
    """
    command = [*_compose(file), "logs", "--no-color", "--timestamps"]
    command += ["--follow"] if wanted.follow else []
    command += ["--since", wanted.since.isoformat()] if wanted.since else []
    with subprocess.Popen(  # noqa: S603 - docker as it is found, our own arguments
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        found: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        complaints: list[str] = []
        readers = [
            threading.Thread(target=_read_into, args=(process.stdout, found), daemon=True),
            threading.Thread(target=complaints.extend, args=(process.stderr,), daemon=True),
        ]
        for reader in readers:
            reader.start()
        try:
            yield from _batches_of(found, follow=wanted.follow)
        finally:
            # Also for a reader who has seen enough.
            process.kill()
            for reader in readers:
                reader.join()
    if process.returncode > 0:
        raise CommandError(
            f"docker compose has said no: {''.join(complaints).strip()}",
            f"start the containers: docker compose -f {file} up --wait",
            exit_code=4,
        )


def compose_is_running(file: Path = COMPOSE_FILE) -> bool:
    """Say whether the compose project has containers."""
    if shutil.which("docker") is None or not file.is_file():
        return False
    with suppress(subprocess.TimeoutExpired):
        asked = subprocess.run(  # noqa: S603
            [*_compose(file), "ps", "--quiet"], capture_output=True, check=False, timeout=10
        )
        return asked.returncode == 0 and bool(asked.stdout.strip())
    return False


def cloudwatch_lines(client: Any, stack: str, wanted: Wanted) -> Batches:
    """Yield what a stack's functions have said; metrics and the platform's own lines about invocations are left out.

    Args:
        client: boto3's, of CloudWatch Logs.
        stack: the stack's name.
        wanted: since when at the latest.
    """
    groups = {f"/aws/lambda/{stack}-{tier}": tier for tier in TIERS}
    since = wanted.since or datetime.fromtimestamp(0, UTC)
    seen: dict[str, int] = {}
    while True:
        lines = []
        for group, tier in groups.items():
            for event in _events(client, group, since, wanted.request_id):
                if event["eventId"] not in seen:
                    seen[event["eventId"]] = event["timestamp"]
                    time_of = datetime.fromtimestamp(event["timestamp"] / 1000, UTC)
                    line = LogLine.parse(event["message"].rstrip("\n"), tier, time_of)
                    if not _is_of_the_platform(line):
                        lines.append(line)
        yield lines
        if not wanted.follow:
            return
        since = max(since, datetime.now(UTC) - _CLOUDWATCH_LATE)
        oldest = int(1000 * since.timestamp())
        seen = {event: timestamp for event, timestamp in seen.items() if timestamp >= oldest}
        time.sleep(_CLOUDWATCH_POLL_S)


def _events(client: Any, group: str, since: datetime, request_id: str | None) -> Iterator[dict[str, Any]]:
    from botocore.exceptions import BotoCoreError, ClientError

    from local.deploy.account import in_words

    asked = {"logGroupName": group, "startTime": int(1000 * since.timestamp())}
    # In quotation marks, a term that stands anywhere in the line.
    asked |= {"filterPattern": f'"{request_id}"'} if request_id else {}
    try:
        for page in client.get_paginator("filter_log_events").paginate(**asked):
            yield from page["events"]
    except client.exceptions.ResourceNotFoundException as error:
        raise CommandError(
            f"there is no log group {group}", "deploy the stage, or name another one: --stage S --region R", exit_code=3
        ) from error
    except (BotoCoreError, ClientError) as error:
        raise in_words(error) from error


def _is_of_the_platform(line: LogLine) -> bool:
    if line.is_structured:
        return False
    said = str(line.fields["message"])
    return said.startswith(("START RequestId", "END RequestId", "REPORT RequestId", "INIT_START", '{"_aws"'))


def _compose(file: Path) -> list[str]:
    docker = shutil.which("docker")
    if docker is None:
        raise CommandError(
            "there is no docker on the PATH", "install Docker with Compose v2, or leave out --compose", 4
        )
    return [docker, "compose", "--file", str(file), "--profile", "*"]


def _read_into(pipe: Iterator[str], found: "queue.SimpleQueue[str | None]") -> None:
    for line in pipe:
        found.put(line)
    found.put(None)


def _batches_of(found: "queue.SimpleQueue[str | None]", *, follow: bool) -> Batches:
    lines: list[LogLine] = []
    until = time.monotonic() + POLL_S
    while True:
        try:
            line = found.get(timeout=max(0.0, until - time.monotonic()) if follow else None)
            if line is None:
                yield lines
                return
            container, _, text = _CONTROL.sub("", line.rstrip("\n")).partition(" | ")
            # huginn-llm-1 or llm-1, as the version has it.
            service = container.strip().removeprefix("huginn-").rpartition("-")[0] or container.strip()
            stamp, _, said = text.partition(" ")
            lines.append(LogLine.parse(said, _tier_of(service), datetime.fromisoformat(stamp)))
        except (queue.Empty, ValueError):
            pass  # nothing yet, or compose's own word about a container
        if follow and time.monotonic() >= until:
            yield lines
            lines, until = [], time.monotonic() + POLL_S


def _tier_of(service: str) -> str:
    # Some services run a tier in another way: llm-2, llm-lambda.
    tier = service.partition("-")[0]
    return tier if tier in TIERS else service


def _parsed(line: str) -> LogLine:
    return LogLine.parse(line, "", datetime.now(UTC))
