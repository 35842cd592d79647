"""A process from its start to its end: start-up, snapshot, several invocations, shut-down, failures."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from local.emulator import Emulator

REPOSITORY = Path(__file__).parents[2]
APP = "tests.runtime.emulated.asgi_app"
RUNTIME = [sys.executable, "-m", "functions.runtime"]


def test_the_standard_library_and_mangum_are_all_it_needs():
    """What a cold start imports before the app; typing_extensions is Mangum's."""
    code = "import functions.runtime.__main__, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    result = subprocess.run([sys.executable, "-I", "-S", "-c", f"import sys; sys.path += {sys.path!r}; {code}"],
        capture_output=True, check=True, cwd=REPOSITORY,
    )  # fmt: skip
    imported = set(result.stdout.decode().split())
    assert imported - sys.stdlib_module_names == {"__main__", "functions", "mangum", "typing_extensions"}


def test_one_lifespan_for_all_requests(run, http):
    """The app starts up once, each request sees what it put into its state, and it shuts down at the end."""
    with run() as emulator:
        assert [http.get(emulator.url).json()["state"] for _ in range(3)] == 3 * [{"started": 1}]
        environment = emulator.environments[0]
        os.kill(environment.pid, signal.SIGTERM)
        while environment.alive:
            time.sleep(0.01)
        log = emulator.log()
    assert log.count("started up") == log.count("shut down") == 1


def test_what_is_under_way_is_finished_before_the_shut_down(run, http):
    """A process that is asked to stop ends its stream first."""
    with run() as emulator:
        with http.stream("GET", f"{emulator.url}/slow") as response:
            chunks = response.iter_text()
            first = next(chunks)
            os.kill(emulator.environments[0].pid, signal.SIGTERM)
            assert first + "".join(chunks) == "0123456789"
        while emulator.environments[0].alive:
            time.sleep(0.01)
        log = emulator.log()
    assert log.index("slow is done") < log.index("shut down")


def test_an_app_without_a_lifespan(run, http):
    """One that knows nothing of it is left alone."""
    with run("no_lifespan") as emulator:
        assert http.get(emulator.url).json() == "no lifespan"


@pytest.mark.parametrize(
    ("app", "environment", "error"),
    [
        ("app", {"FAIL_TO_START": "1"}, "Runtime.StartUpFailed"),
        ("nothing", {}, "Runtime.HandlerNotFound"),
    ],
)
def test_a_start_that_fails_is_told(run, http, lambda_client, app, environment, error):
    """Lambda hears why, and the caller too."""
    with run(app, environment) as emulator:
        answer = lambda_client(emulator).invoke(FunctionName="function", Payload=b"{}")
        assert json.loads(answer["Payload"].read())["errorType"] == error
        assert emulator.environments[0].requests == ["POST init/error"]


def test_a_module_that_is_not_there(http, lambda_client):
    """So does what is raised while the app's module is imported."""
    with Emulator([*RUNTIME, "no.such.module.app"]) as emulator:
        answer = lambda_client(emulator).invoke(FunctionName="function", Payload=b"{}")
        assert json.loads(answer["Payload"].read())["errorType"] == "ModuleNotFoundError"


def test_the_app_from_the_wrapper_in_a_zip(http):
    """Lambda starts the wrapper with its own Python's command line, and names the app in _HANDLER."""
    bootstrap = REPOSITORY / "functions" / "runtime" / "bootstrap"
    command = [str(bootstrap), sys.executable, "/var/runtime/bootstrap.py"]
    with Emulator(command, {"_HANDLER": f"{APP}.app"}) as emulator:
        assert http.get(emulator.url).json()["state"] == {"started": 1}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "AWS_LAMBDA_RUNTIME_API is not set"),
        ({"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:1"}, "_HANDLER is not set"),
        (
            {"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:1", "_HANDLER": "a.b", "AWS_LAMBDA_MAX_CONCURRENCY": "0"},
            "AWS_LAMBDA_MAX_CONCURRENCY is '0'",
        ),
        (
            {"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:1", "_HANDLER": "a.b", "RUNTIME_RESPONSE_MODE": "both"},
            "RUNTIME_RESPONSE_MODE is 'both'",
        ),
        (
            {"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:1", "_HANDLER": "a.b", "RUNTIME_TIMEOUT_HEADER": "time left"},
            "RUNTIME_TIMEOUT_HEADER is 'time left'",
        ),
    ],
)
def test_an_environment_that_is_not_lambdas(environment, message):
    """Started by hand it says what is missing, by name."""
    result = subprocess.run(
        RUNTIME, env={"PATH": os.environ["PATH"], **environment}, capture_output=True, cwd=REPOSITORY
    )
    assert result.returncode != 0
    assert message in result.stderr.decode()
    assert "Traceback" not in result.stderr.decode()


def test_the_snapshot_is_made_of_a_process_that_is_ready(run, http):
    """Start-up comes first; then, and only then, is the snapshot asked for, and after it the first invocation."""
    with run(environment={"STARTS_IN_S": "0.3"}, snap_start=True) as emulator:
        emulator.start_environment()
        while not (environment := emulator.environments[0]).requests:
            time.sleep(0.01)
        assert "started up" in emulator.log()
        http.get(emulator.url)
        assert environment.requests[:2] == ["GET restore/next", "GET invocation/next"]


def test_processes_of_one_snapshot_draw_other_numbers(run, http):
    """The app seeded `random` before the snapshot; what comes out of it is seeded anew. Without one it is as seeded."""
    seeded = []
    for snap_start in (True, False):
        with run(snap_start=snap_start) as emulator:
            seeded.append(http.get(f"{emulator.url}/randomness").json()[0])
    assert seeded[0] != seeded[1] == 0.13436424411240122  # random.seed(1); random.random()


def test_hooks_are_run_around_the_snapshot(run, http):
    """What the app registered with AWS's module: before it in reverse, after it in order; without a snapshot never."""
    for snap_start, hooks in (
        (True, ["before second", "before first", "after first", "after second"]),
        (False, []),
    ):
        with run("app", {"REGISTER_HOOKS": "1"}, snap_start=snap_start) as emulator:
            assert http.get(f"{emulator.url}/hooked").json() == hooks


def test_a_restore_that_fails_is_told(run, lambda_client):
    """A process that cannot come out of its snapshot says so, and leaves."""
    with run("app", {"FAIL_AFTER_RESTORE": "1"}, snap_start=True) as emulator:
        answer = lambda_client(emulator).invoke(FunctionName="function", Payload=b"{}")
        assert json.loads(answer["Payload"].read())["errorType"] == "RangeError"
        assert emulator.environments[0].requests == ["GET restore/next", "POST restore/error"]


def test_several_invocations_share_one_process(run, http):
    """Four at once where Lambda allows four, each waiting for the others; a fifth goes elsewhere or is refused."""
    with run(concurrency=4, max_environments=1) as emulator, ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(http.get, f"{emulator.url}/together?4") for _ in range(4)]
        processes = {answer.result().json() for answer in answers}
        assert http.get(emulator.url).json()["state"] == {"started": 1}
        assert processes == {emulator.environments[0].pid}
        assert emulator.environments[0].most_at_once == 4


def test_one_failure_among_several_harms_no_other(run, http):
    """Streams that run at the same time in one process end each in its own way."""
    with run(concurrency=2, max_environments=1) as emulator, ThreadPoolExecutor(2) as pool:
        slow = pool.submit(http.get, f"{emulator.url}/slow")
        failed = pool.submit(http.get, f"{emulator.url}/fail_early")
        assert failed.result().status_code == 502
        assert slow.result().text == "0123456789"


def test_the_invocation_id_comes_back(run, http):
    """Where Lambda gives one, every kind of answer carries it."""
    with run(echoes_invocation_id=True) as emulator:
        assert http.get(f"{emulator.url}/headed").status_code == 418
        http.get(f"{emulator.url}/fail_early")
        assert emulator.invocations[1].failure.error_type == "RangeError"
