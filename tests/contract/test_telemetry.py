"""What each tier has of its own, and all have alike: the trace context, the log's lines, the line of a request."""

import asyncio
import json
import logging
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

FUNCTIONS = Path(__file__).parents[2] / "functions"
TIERS = ("llm", "backend", "frontend")

PARENT = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
TRACEPARENT = f"00-{PARENT[0]}-{PARENT[1]}-01"


@pytest.fixture(params=TIERS)
def tier(request) -> str:
    return request.param


def module_of(tier: str, name: str):
    return import_module(f"functions.{tier}.telemetry.{name}")


@pytest.mark.parametrize("other", TIERS[1:])
def test_the_copies_are_one_text(other):
    """The functions share no code; what is mended in one is mended in all."""
    texts = [
        {path.name: path.read_text("utf-8").replace(f"functions.{tier}.", "") for path in folder.glob("*.py")}
        for tier in ("llm", other)
        for folder in [FUNCTIONS / tier / "telemetry"]
    ]
    assert texts[0] == texts[1]
    assert len(texts[0]) >= 5


def context_of(tier: str, *headers: tuple[str, str]):
    read = module_of(tier, "trace_context").TraceContext.from_headers
    return read([(name.encode(), value.encode("latin-1")) for name, value in headers])


def test_a_valid_trace_is_gone_on_with(tier):
    """Its id stays, the caller's span is the parent, and the next tier is told of a span of our own."""
    found = context_of(tier, ("traceparent", TRACEPARENT), ("tracestate", "raven=1, t61@fw=x y"), ("tracestate", "a=b"))
    assert (found.trace_id, found.parent_id, found.sampled) == (*PARENT, True)
    assert re.fullmatch("[0-9a-f]{16}", found.span_id)
    assert found.span_id != PARENT[1]
    told = found.to_headers()
    assert told == {"traceparent": f"00-{PARENT[0]}-{found.span_id}-01", "tracestate": "raven=1,t61@fw=x y,a=b"}
    below = context_of(tier, *told.items())
    assert (below.trace_id, below.parent_id) == (PARENT[0], found.span_id)


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("ff", True), ("fe", False)])
def test_only_the_known_flag_is_passed_on(tier, flags, sampled):
    """Whether the caller records; the other bits mean nothing yet, and are cleared."""
    found = context_of(tier, ("traceparent", f"00-{PARENT[0]}-{PARENT[1]}-{flags}"))
    assert found.sampled is sampled
    assert found.to_headers()["traceparent"].endswith("-01" if sampled else "-00")


def test_a_later_version_is_read_as_far_as_it_is_known(tier):
    """And told on in ours."""
    found = context_of(tier, ("traceparent", f"cc-{PARENT[0]}-{PARENT[1]}-01-what-will-be"))
    assert found.parent_id == PARENT[1]
    assert found.to_headers()["traceparent"].startswith(f"00-{PARENT[0]}")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("traceparent", "")],
        [("traceparent", TRACEPARENT.upper())],
        [("traceparent", f"ff-{PARENT[0]}-{PARENT[1]}-01")],
        [("traceparent", f"{TRACEPARENT}-more")],
        [("traceparent", f"00-{'0' * 32}-{PARENT[1]}-01")],
        [("traceparent", f"00-{PARENT[0]}-{'0' * 16}-01")],
        [("traceparent", f"00-{PARENT[0][:-1]}-{PARENT[1]}-01")],
        [("traceparent", f"00-{PARENT[0]}-{PARENT[1]}-0g")],
        [("traceparent", TRACEPARENT), ("traceparent", TRACEPARENT)],
        [("tracestate", "a=b")],
    ],
)
def test_without_a_valid_trace_a_new_one_begins(tier, headers):
    """Without a parent, recorded, and without what others kept for the invalid one."""
    found = context_of(tier, *headers, ("tracestate", "raven=1"))
    assert found.trace_id != PARENT[0]
    assert (found.parent_id, found.sampled, found.state) == (None, True, "")
    assert re.fullmatch("[0-9a-f]{32}", found.trace_id)
    assert found.trace_id != context_of(tier, *headers).trace_id


@pytest.mark.parametrize(
    "state",
    ["Raven=1", "a", "a=b=c", "a=1,a=2", "a=é", ",".join(f"k{i}=1" for i in range(33)), f"a={'x' * 256},b={'y' * 256}"],
)
def test_a_state_that_is_none_is_dropped_and_the_trace_kept(tier, state):
    """All of it: half a state would be somebody else's."""
    found = context_of(tier, ("traceparent", TRACEPARENT), ("tracestate", state))
    assert (found.parent_id, found.state) == (PARENT[1], "")


class Lines(logging.Handler):
    """What one logger's records become."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def logged(tier):
    """The tier's lines, as JSON would have them."""
    handler = Lines(module_of(tier, "log_lines").JsonFormatter(tier))
    logger = logging.getLogger(f"functions.{tier}")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler.lines
    logger.removeHandler(handler)
    logger.setLevel(before)


def serve(tier: str, app, path: str = "/made", headers=()) -> list[dict]:
    """Put one request through the middleware; gives what the client is sent."""
    sent: list[dict] = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http", "method": "POST", "path": path, "headers": list(headers), "query_string": b"prompt=nevermore",
        "state": {"request_id": "raven-1"},
    }  # fmt: skip
    log = module_of(tier, "request_log").RequestLog(app)
    asyncio.run(log(scope, receive, send))
    return sent


async def answer(send, status=200, *, whole=True):
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b"nevermore", "more_body": True})
    if whole:
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def test_a_request_is_one_line_with_its_ids_and_what_was_noted(tier, logged):
    """Whatever runs within it, in tasks and threads of its own, speaks for the same request."""
    current = module_of(tier, "current")

    async def app(scope, receive, send):
        async def work():
            current.note(tokens=3, model="raven")
            await asyncio.to_thread(logging.getLogger(f"functions.{tier}").warning, "half way %d", 1)

        await asyncio.create_task(work())
        assert current.trace_headers() == scope["state"]["trace"].to_headers()
        await answer(send)

    sent = serve(tier, app, headers=[(b"traceparent", TRACEPARENT.encode())])
    assert len(sent) == 3
    within, line = map(json.loads, logged)
    assert (within["message"], within["level"], within["tier"]) == ("half way 1", "warning", tier)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert line["request_id"] == within["request_id"] == "raven-1"
    assert line["trace_id"] == within["trace_id"] == PARENT[0]
    assert line["span_id"] == within["span_id"] != PARENT[1]
    assert (line["event"], line["level"], line["method"], line["path"]) == ("request", "info", "POST", "/made")
    assert (line["status"], line["tokens"], line["model"]) == (200, 3, "raven")
    assert line["duration_ms"] >= line["first_byte_ms"] >= 0
    assert "complete" not in line
    assert "nevermore" not in "".join(logged)


def test_an_answer_that_was_not_ended_is_told(tier, logged):
    """By a client that has left, or by a failure of ours."""

    async def leaves(scope, receive, send):
        await answer(send, whole=False)

    async def never_answered(scope, receive, send):
        pass

    async def breaks(scope, receive, send):
        await answer(send, whole=False)
        raise ValueError("planted")

    async def fails(scope, receive, send):
        raise ValueError("planted")

    serve(tier, leaves)
    serve(tier, never_answered)
    for app in (breaks, fails):
        with pytest.raises(ValueError, match="planted"):
            serve(tier, app)
    told = [
        (line["status"], line["complete"], line.get("error"), "first_byte_ms" in line)
        for line in map(json.loads, logged)
    ]
    assert told == [
        (200, False, None, True), (499, False, None, False), (200, False, "internal", True),
        (500, False, "internal", False),
    ]  # fmt: skip


def test_probes_are_told_only_to_who_looks_for_them(tier, logged):
    """They come every second; but one that fails is of interest."""

    async def good(scope, receive, send):
        await answer(send)

    async def bad(scope, receive, send):
        await answer(send, 503)

    serve(tier, good, "/readyz")
    serve(tier, bad, "/readyz")
    assert [json.loads(line)["level"] for line in logged] == ["debug", "info"]


def test_a_traceback_is_a_field(tier, logged):
    """One line, however many lines an exception has."""
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        logging.getLogger(f"functions.{tier}").exception("it failed")
    [line] = logged
    assert "\n" not in line
    told = json.loads(line)
    assert told["message"] == "it failed"
    assert told["exception"].startswith("Traceback")
    assert "first\nsecond" in told["exception"]


CONFIGURED = """
import asyncio, logging, logging.config, sys, threading, warnings
import uvicorn.config
logging.config.dictConfig(uvicorn.config.LOGGING_CONFIG)  # as uvicorn does before it imports the app
from functions.{tier}.telemetry.cut_off import CutOffError
from functions.{tier}.telemetry.log_lines import configure_logging
configure_logging({tier!r}, *sys.argv[1:])
logging.getLogger("uvicorn.error").info("started")
logging.getLogger("uvicorn.access").info("GET")
logging.getLogger("httpx").info("HTTP Request: GET /secret")
logging.getLogger("functions.{tier}.app").info("ours")
logging.getLogger("functions.{tier}.app").debug("small things")
try:
    raise CutOffError("on purpose")
except CutOffError:
    logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
warnings.warn("old", DeprecationWarning)
def die(): raise ValueError("in a thread")
thread = threading.Thread(target=die, name="raven"); thread.start(); thread.join()
raise RuntimeError("at the end")
"""


def run_configured(tier: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = CONFIGURED.format(tier=tier)
    return subprocess.run(
        [sys.executable, "-W", "always", "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_process_says_everything_in_one_form(tier):
    """The server's lines, warnings, and what nobody has caught, all as JSON, each once.

    Left out are others' chatter, and what the server says of an answer that was cut off on purpose.
    """
    run = run_configured(tier, "json", "info")
    lines = [json.loads(line) for line in run.stdout.split("\n")[:-1]]
    said = [(line["level"], line["message"]) for line in lines]
    assert said[:2] == [("info", "started"), ("info", "ours")]
    assert said[2][0] == "warning"
    assert "DeprecationWarning: old" in said[2][1]
    assert said[3:] == [("error", "The thread raven has failed"), ("critical", "The process has failed")]
    assert "ValueError: in a thread" in lines[3]["exception"]
    assert "RuntimeError: at the end" in lines[4]["exception"]
    assert run.stderr == ""
    assert run.returncode == 1


def test_a_terminal_has_plain_lines():
    """On standard error, from the level on that was asked for."""
    run = run_configured("backend", "text", "warning")
    assert run.stdout == ""
    assert "started" not in run.stderr
    assert "RuntimeError: at the end" in run.stderr
    formatter = module_of("backend", "log_lines").TextFormatter()
    record = logging.LogRecord("functions.x", logging.INFO, "", 0, "request", (), None)
    record.fields = {"event": "request", "status": 200}
    assert formatter.format(record) == "INFO event=request status=200"


def formatted(record: logging.LogRecord) -> str:
    return module_of("backend", "log_lines").TextFormatter().format(record)


def test_nothing_in_a_plain_line_is_obeyed_by_a_terminal():
    """In a path, a message or an exception: no colour, no cleared screen, and no line that looks like another."""
    forged = "/a\nERROR functions: fake\x1b[31m\u2028é"
    shown = r"/a\nERROR functions: fake\x1b[31m\u2028é"
    record = logging.LogRecord("functions.x", logging.INFO, "", 0, "%s failed", (forged,), None)
    assert formatted(record) == f"INFO functions.x: {shown} failed"
    try:
        raise ValueError(forged)
    except ValueError:
        record = logging.LogRecord("functions.x", logging.ERROR, "", 0, "It failed", (), sys.exc_info())
    first, *rest = formatted(record).split("\n")
    assert first == "ERROR functions.x: It failed"
    assert rest
    assert all(line.startswith("    ") and line.isprintable() for line in rest)
    record = logging.LogRecord("functions.x", logging.INFO, "", 0, "request", (), None)
    record.fields = {"event": "request", "path": forged}
    assert formatted(record) == f"INFO event=request path={shown}"


@pytest.mark.parametrize(("name", "value"), [("LOG_FORMAT", "xml"), ("LOG_LEVEL", "loud"), ("LOG_FORMAT", "")])
def test_a_setting_that_is_none_is_named(tier, name, value):
    """At the start."""
    settings = import_module(f"functions.{tier}.settings")
    with pytest.raises(settings.SettingsError, match=f"{name} is '{value}'"):
        settings.Settings.from_env({name: value, "HOME": "/nowhere"})


def started_wrongly(tier: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """By the server, as in a container, with a setting that is none."""
    return subprocess.run(
        [sys.executable, "-m", "uvicorn", f"functions.{tier}.handler:app", "--port", "0"],
        env={"PATH": "/usr/bin:/bin", "METRICS_PORT": "many", **environ},
        cwd=FUNCTIONS.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_start_that_is_refused_is_one_line_of_the_log(tier):
    """Not a traceback of somebody else's; and its exit code is that of a wrong setting."""
    run = started_wrongly(tier)
    line = json.loads(run.stdout)
    assert (line["level"], line["tier"]) == ("critical", tier)
    assert line["message"].startswith("METRICS_PORT is 'many'")
    assert (run.stderr, run.returncode) == ("", 2)


def test_a_terminal_is_told_of_it_in_plain_words():
    """In the form that is asked for, if that one is understood."""
    run = started_wrongly("backend", LOG_FORMAT="text")
    assert run.stderr.startswith("CRITICAL functions: METRICS_PORT is 'many'")
    assert (run.stderr.count("\n"), run.stdout, run.returncode) == (1, "", 2)
    assert json.loads(started_wrongly("backend", LOG_FORMAT="xml").stdout)["level"] == "critical"
