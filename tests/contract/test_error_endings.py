"""However an answer ends in an error: its reader, the request's line in the log and the counter know it by one code."""

import asyncio
import logging
from dataclasses import replace

import pytest

from functions.backend.app import build_app as build_backend
from functions.backend.controllers.traffic import TrafficMiddleware as BackendTraffic
from functions.backend.domain.errors import LLMBusy, LLMDisconnected, LLMMisbehaved, LLMTimeout, LLMUnavailable
from functions.backend.domain.events import StreamError, Token
from functions.backend.settings import Settings as BackendSettings
from functions.frontend.app import build_app as build_frontend
from functions.frontend.settings import Settings as FrontendSettings
from functions.frontend.traffic import TrafficMiddleware as FrontendTraffic
from tests.asgi_exchange import PATIENCE_S, exchange
from tests.frontend.fake_backend import Pace, Script, run_fake_backend, token_events
from tests.unused_ports import unused_address

STREAM, GENERATE, COMPLETIONS = "/api/llm/stream", "/api/llm/generate", "/v1/completions"
EVENTS, PLAIN = {"accept": "text/event-stream"}, {"accept": "text/plain"}
ASK = {"prompt": "a"}
OPENAI = {"model": "m", "prompt": "a", "stream": True}


def ends(app, middleware, *asked, **trouble):
    """The answer, and what this process has counted by code."""
    answer = asyncio.run(exchange(app, *asked, **trouble))
    [traffic] = [found.kwargs["traffic"] for found in app.user_middleware if found.cls is middleware]
    counted = {}
    for (code, _), count in traffic.errors.items():
        counted[code] = counted.get(code, 0) + count
    return answer, counted


@pytest.fixture
def told(caplog):
    """What the log tells of the requests: the codes of their errors; nothing else may be said of them as our fault."""
    caplog.set_level(logging.INFO, "functions")

    def codes():
        ours = [record for record in caplog.records if record.name.startswith("functions.")]
        assert [record for record in ours if record.levelno >= logging.ERROR] == []
        return [record.fields.get("error") for record in ours if hasattr(record, "fields")]

    return codes


class Model:
    """Tells a token, if it begins at all, and then does what it is given: fail, say so, leave, or keep silent."""

    ready = None

    def __init__(self, then, begins=True):
        self.then, self.begins = then, begins

    async def stream(self, generation, request_id, client="", timeout_s=None):
        if self.begins:
            yield Token(6, 1, " th")
        match self.then:
            case Exception():
                raise self.then
            case StreamError():
                yield self.then
            case "silence":
                await asyncio.sleep(2 * PATIENCE_S)
            case "more":
                for position in range(7, 9):
                    await asyncio.sleep(0)
                    yield Token(position, 1, " th")
                await asyncio.sleep(2 * PATIENCE_S)


SETTINGS = BackendSettings(llm_url=f"{unused_address()}/generate/stream", reader_timeout_s=0.3)
FORMS = [(STREAM, ASK, EVENTS), (STREAM, ASK, PLAIN), (COMPLETIONS, OPENAI, {}), (COMPLETIONS, OPENAI | {"n": 2}, {})]
FAILURES = [
    (LLMDisconnected(), "llm_disconnected"),
    (LLMTimeout("It was silent."), "llm_timeout"),
    (LLMMisbehaved("No event."), "llm_error"),
    (StreamError("internal", "It broke.", retryable=True), "internal"),
    (StreamError("not_ready", "It stops.", retryable=True), "not_ready"),
    (StreamError("deadline_exceeded", "It took too long.", retryable=True), "deadline_exceeded"),
    (None, "llm_disconnected"),
]


@pytest.mark.parametrize("asked", FORMS, ids=["events", "plain", "openai", "openai twice"])
@pytest.mark.parametrize(("then", "code"), FAILURES, ids=[code for _, code in FAILURES])
def test_the_backend_s_stream_that_the_model_ends(told, asked, then, code):
    """Whatever it does: it says that it failed, sends nonsense, or leaves with a word, without one, or never."""
    expect_ending(told, asked, build_backend(SETTINGS, Model(then)), code)


@pytest.mark.parametrize("asked", FORMS, ids=["events", "plain", "openai", "openai twice"])
@pytest.mark.parametrize(("trouble", "code"), [("stalls", "slow_reader"), ("stops", "not_ready")])
def test_the_backend_s_stream_that_is_not_read_or_not_served_to_its_end(told, asked, trouble, code):
    """By a reader who takes nothing, and by a server that stops."""
    expect_ending(told, asked, build_backend(SETTINGS, Model("more")), code, trouble=trouble)


def expect_ending(told, asked, app, code, **trouble):
    answer, counted = ends(app, BackendTraffic, *asked, **trouble)
    assert answer.status == 200
    if asked[2] is PLAIN:
        assert answer.cut_off
        assert not answer.ended
    else:
        assert (answer.code, answer.cut_off) == (code, False)
    assert (told(), counted) == ([code], {code: 1})


@pytest.mark.parametrize("begins", [True, False], ids=["begun", "not begun"])
@pytest.mark.parametrize("asked", [*FORMS, (GENERATE, ASK, {}), (COMPLETIONS, OPENAI | {"stream": False}, {})])
@pytest.mark.parametrize(
    ("longest_s", "own", "code"), [(900.0, "1", "time_limit_reached"), (1.0, "900", "deadline_exceeded")]
)
def test_the_backend_s_answer_whose_time_is_up(told, asked, begins, longest_s, own, code):
    """Its own limit or everybody's: in a stream and in a whole answer alike."""
    app = build_backend(replace(SETTINGS, request_timeout_s=longest_s), Model("silence", begins=begins))
    path, body, headers = asked
    answer, counted = ends(app, BackendTraffic, path, body, headers | {"x-huginn-timeout-s": own})
    has_begun = begins and asked in FORMS
    assert answer.status == (200 if has_begun else 504)
    assert answer.cut_off == (has_begun and headers is PLAIN)
    assert answer.cut_off or answer.code == code
    assert (told(), counted) == ([code], {code: 1})


@pytest.mark.parametrize("asked", [*FORMS, (GENERATE, ASK, {}), (COMPLETIONS, OPENAI | {"stream": False}, {})])
@pytest.mark.parametrize(
    ("then", "code"),
    [
        *FAILURES,
        (LLMUnavailable("Nobody is there."), "llm_unavailable"),
        (LLMBusy("queue_full", "Full.", retry_after="1"), "queue_full"),
    ],
)
def test_the_backend_s_answer_that_does_not_begin(told, asked, then, code):
    """The same codes with a status, for a whole text too."""
    answer, counted = ends(build_backend(SETTINGS, Model(then, begins=False)), BackendTraffic, *asked)
    assert (answer.status // 100, answer.code, told(), counted) == (5, code, [code], {code: 1})


@pytest.mark.parametrize("headers", [EVENTS, PLAIN], ids=["events", "plain"])
@pytest.mark.parametrize(
    ("chunks", "trouble", "code"),
    [
        (1, None, "backend_unavailable"),
        (2, None, "backend_timeout"),
        (9, "stalls", "slow_reader"),
        (2, "stops", "not_ready"),
    ],
)
def test_the_page_s_relay(told, headers, chunks, trouble, code):
    """What the backend writes it only passes on; what becomes of its own neighbours it knows."""
    pace = Pace()
    pace.allow(1)
    head = {"content-type": headers["accept"]}
    script = Script(
        200, head, token_events([" a"] * chunks), gap_s=0.05, breaks=True, pace=None if chunks > 2 else pace
    )
    with run_fake_backend() as running:
        running.scripts[STREAM] = script
        timeout_s = 0.5 if code == "backend_timeout" else PATIENCE_S
        app = build_frontend(FrontendSettings(running.url, timeout_s, metrics_port=9, reader_timeout_s=0.3))
        answer, counted = ends(app, FrontendTraffic, STREAM, ASK, headers, trouble=trouble)
    assert answer.status == 200
    if trouble and headers is EVENTS:
        assert (answer.code, answer.cut_off) == (code, False)
    else:
        assert answer.cut_off
    if (code, headers) == ("backend_unavailable", PLAIN):
        # So ends every text that ends in an error, and the backend has counted it.
        code = "text_cut_off"
    assert (told(), counted) == ([code], {code: 1})
