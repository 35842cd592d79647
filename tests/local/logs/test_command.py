"""`huginn logs`: one request across the tiers, from wherever they run."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import PIPE

import pytest

from local.cli import main
from local.errors import CommandError
from local.logs.command import since
from local.logs.kept_log import KeptLog, logs_folder

REPOSITORY = Path(__file__).parents[3]
LOGS = [sys.executable, "-m", "local.cli", "logs"]


def shown(capsys, *arguments: str) -> list[str]:
    assert main(["logs", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_one_request_is_shown_across_the_tiers_by_time(kept, capsys):
    """One line each, in the order in which it happened; as JSON exactly what was written."""
    lines = shown(capsys, "--request-id", "raven-1")
    assert [line.split()[1] for line in lines] == ["llm", "backend", "frontend"]
    assert all("[raven-1]" in line for line in lines)
    found = [json.loads(line) for line in shown(capsys, "--request-id", "raven-1", "--json")]
    assert found == sorted((line for line in kept if line["request_id"] == "raven-1"), key=lambda line: line["time"])
    assert shown(capsys, "--request-id", "nobody") == []


def test_tiers_and_times_narrow_it(kept, capsys):
    """Together with each other; without any of them all is shown."""
    assert len(shown(capsys)) == 5
    assert [line.split()[1] for line in shown(capsys, "--tier", "llm", "--tier", "backend")] == [
        "llm",
        "backend",
        "llm",
    ]
    later = shown(capsys, "--since", "2026-11-23T02:00:03Z", "--tier", "llm")
    assert len(later) == 1
    assert "another" in later[0]


def test_an_age_or_a_time_is_since_when():
    """Anything else is refused in words."""
    now = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
    ages = {
        "90s": timedelta(seconds=90),
        "10m": timedelta(minutes=10),
        "2h": timedelta(hours=2),
        "1d": timedelta(days=1),
    }
    assert {text: now - since(text, now) for text in ages} == ages
    assert since("2026-11-23T01:00:00+00:00", now) == now - timedelta(hours=1)
    for text in ("", "soon", "-5m", "1y", "999999999d"):
        with pytest.raises(CommandError, match="--since"):
            since(text, now)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--since", "soon"], 2, "10m"),
        (["--request-id", "a b"], 2, "x-request-id"),
        (["--stage", "Prod!"], 2, "--stage"),
        ([], 3, "huginn up"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_words(tmp_path, monkeypatch, capsys, arguments, code, said):
    """With the exit code of its class and the way out."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["logs", *arguments]) == code
    assert said in capsys.readouterr().err


def test_without_docker_compose_is_refused_in_words(tmp_path, monkeypatch, capsys):
    """A service that cannot be had: exit code 4."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["logs", "--compose"]) == 4
    assert "there is no docker" in capsys.readouterr().err


def test_following_shows_what_comes_until_ctrl_c(kept, tmp_path):
    """At once, without a word at the end; exit code 130, as for every command."""
    process = subprocess.Popen(
        [*LOGS, "-f", "--request-id", "raven-1"], cwd=REPOSITORY, stdout=PIPE, stderr=PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(3)]
        assert "frontend" in said[2]
        [run] = (tmp_path / "huginn" / "logs").glob("up-*.jsonl")
        with run.open("a") as file:
            file.write(json.dumps({**kept[0], "time": "2026-11-23T02:00:09.000Z", "status": 503}) + "\n")
        assert "503" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (130, "", "")
    finally:
        process.kill()
        process.communicate()


def test_a_reader_that_has_seen_enough_ends_it_quietly(kept):
    """`huginn logs | head -1`, also where what is written is held back until it is much."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen([*LOGS, "-f"], cwd=REPOSITORY, stdout=PIPE, stderr=PIPE, text=True, env=environ)
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        [run] = Path(os.environ["XDG_STATE_HOME"], "huginn", "logs").glob("up-*.jsonl")
        with run.open("a") as file:
            file.write("one more\n")
        assert process.stderr is not None
        assert (process.wait(60), process.stderr.read()) == (0, "")
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


@pytest.fixture
def docker(tmp_path, monkeypatch, lines):
    """A `docker` that prints what the real one prints for containers, and remembers what it was asked for."""
    (tmp_path / "lines").write_text(
        "".join(
            f"{line['tier']}-1    | 2026-11-23T02:00:00.123456789Z {json.dumps(line)}\n" for line in lines
        )
        + "\x1b[2Kprometheus-1  | 2026-11-23T02:00:07.000000001Z level=info msg=\"ready | now\"\n"
        + "prometheus-1 exited with code 0\n"
    )  # fmt: skip
    (tmp_path / "profiled").write_text(
        "llm-2-1  | 2026-11-23T02:00:08.000000001Z Killed\n"
        "huginn-llm-lambda-1  | 2026-11-23T02:00:09.000000001Z START\n"
    )
    docker = tmp_path / "docker"
    docker.write_text(
        f"#!/bin/sh\necho \"$*\" >> {tmp_path}/asked\n"
        f"case \"$*\" in *' ps '*) echo c0ffee ;; *) /bin/cat {tmp_path}/lines ;; esac\n"
        f"case \"$*\" in *'--profile * logs '*) /bin/cat {tmp_path}/profiled ;; esac\n"
        "case \"$*\" in *--follow*) exec /bin/sleep 60 ;; esac\n"
    )  # fmt: skip
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "asked"


def test_containers_are_shown_where_they_run(docker, capsys):
    """Found unasked where no `huginn up` runs; what others say, who have no JSON, has their name and time."""
    lines = shown(capsys, "--request-id", "raven-1")
    assert [line.split()[1] for line in lines] == ["llm", "backend", "frontend"]
    [other] = shown(capsys, "--compose", "--tier", "prometheus", "--since", "2026-11-23T02:00:05Z")
    assert 'msg="ready | now"' in other
    assert "--since 2026-11-23T02:00:05+00:00" in docker.read_text()


def test_containers_of_a_profile_are_of_their_tier(docker, capsys):
    """The second model's and Lambda's too, also in what is no JSON: an end without a word of its own, a traceback."""
    lines = shown(capsys, "--compose", "--tier", "llm")
    assert [line.split()[-1] for line in lines][-2:] == ["Killed", "START"]
    assert len(lines) == 4


def test_a_run_that_is_over_does_not_hide_the_containers(docker, tmp_path, capsys):
    """Not even where somebody else has its pid by now."""
    with KeptLog(logs_folder({"XDG_STATE_HOME": str(tmp_path / "state")})) as log:
        log.write("of the run")
        assert len(shown(capsys)) == 1
    assert len(shown(capsys)) == 7


def test_containers_are_followed_until_ctrl_c(docker):
    """And docker, which would go on, is ended with us."""
    process = subprocess.Popen(
        [*LOGS, "--compose", "-f", "--tier", "llm"],
        cwd=REPOSITORY,
        stdout=PIPE,
        stderr=PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert all("llm" in process.stdout.readline() for _ in range(4))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (130, "", "")
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def stack(aws):
    """The log groups of a stage with the lines in them, and more that the platform has written."""
    logs = aws("logs")

    def write(tier: str, *messages: str) -> None:
        now = int(time.time() * 1000)
        events = [{"timestamp": now + number, "message": message} for number, message in enumerate(messages)]
        logs.put_log_events(logGroupName=f"/aws/lambda/huginn-prod-{tier}", logStreamName="a", logEvents=events)

    for tier in ("frontend", "backend", "llm"):
        logs.create_log_group(logGroupName=f"/aws/lambda/huginn-prod-{tier}")
        logs.create_log_stream(logGroupName=f"/aws/lambda/huginn-prod-{tier}", logStreamName="a")
    return write


def test_a_deployed_stage_is_shown(stack, lines, capsys):
    """All groups in one, without metrics and the platform's bookkeeping; one request's where it is asked for."""
    for line in lines:
        stamped = {**line, "time": datetime.now(UTC).isoformat()}
        stack(
            line["tier"],
            "START RequestId: 1 Version: 2\n",
            json.dumps(stamped) + "\n",
            '{"_aws":{}}\n',
            "REPORT RequestId: 1",
        )
    assert sorted(line.split()[1] for line in shown(capsys, "--stage", "prod")) == ["backend", "frontend", "llm", "llm"]
    one = shown(capsys, "--stage", "prod", "--request-id", "raven-1", "--json")
    assert sorted(json.loads(line)["tier"] for line in one) == ["backend", "frontend", "llm"]
    assert main(["logs", "--stage", "nowhere"]) == 3
    assert "huginn-nowhere" in capsys.readouterr().err


def test_a_deployed_stage_is_followed(stack, lines, capsys, monkeypatch):
    """Each line once, however often it is asked for."""
    monkeypatch.setattr("local.logs.sources._CLOUDWATCH_POLL_S", 0.05)
    stack("llm", "the first")
    done = threading.Event()
    batches: list[str] = []

    def watch(line: str = "", **_: object) -> None:
        batches.append(line)
        if "the first" in line:
            stack("backend", "the second")
        if "the second" in line:
            done.set()
            raise KeyboardInterrupt

    monkeypatch.setattr("builtins.print", watch)
    assert main(["logs", "-f", "--stage", "prod"]) == 130
    assert done.is_set()
    assert len(batches) == 2
