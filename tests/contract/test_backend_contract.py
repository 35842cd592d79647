"""The backend reads and writes the golden wire that it shares with the model service."""

import json
from pathlib import Path

import pytest

from functions.backend.adapters.event_stream import EventStreamParser
from functions.backend.adapters.llm_wire import read_error, read_event, read_models, read_status, write_request
from functions.backend.application.ledger import Ledger
from functions.backend.controllers.errors import STATUSES
from functions.backend.controllers.status import BackendStatus, status_body
from functions.backend.controllers.wire import WholeText, models_body, read_generation, write_event
from functions.backend.domain.events import Token
from functions.backend.domain.prompt import PromptLimits

GOLDEN = Path(__file__).parent / "golden"
STREAMS = sorted(path.name for path in GOLDEN.glob("*.sse"))
ERRORS = sorted(path.name for path in GOLDEN.glob("error_*.json"))
REQUESTS = sorted(path.name for path in GOLDEN.glob("generate_request_*.json"))


def load(name):
    return json.loads((GOLDEN / name).read_bytes())


def events_of(name):
    return [read_event(frame) for frame in EventStreamParser().push((GOLDEN / name).read_bytes())]


def test_the_golden_files_are_there():
    """An empty folder would pass every test below."""
    assert {"stream_plain.sse", "stream_error.sse", "stream_logprobs.sse"} <= set(STREAMS)
    assert len(ERRORS) >= 10
    assert len(REQUESTS) >= 3


@pytest.mark.parametrize("name", STREAMS)
def test_streams_are_read_and_written_byte_for_byte(name):
    """What the backend tells its clients is what the model service told it."""
    events = events_of(name)
    assert None not in events
    assert b"".join(write_event(event) for event in events) == (GOLDEN / name).read_bytes()


def test_the_text_of_a_stream_is_its_tokens_text():
    """The plain form of the same generation."""
    text = "".join(event.text for event in events_of("stream_plain.sse") if isinstance(event, Token))
    assert text.encode() == (GOLDEN / "stream_plain.txt").read_bytes()


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_are_read_and_written_byte_for_byte(name):
    """A client's request reaches the model service as it was; only numbers and a lone stop string are made uniform."""
    request = load(name)
    if request.get("temperature") == 0:
        request["temperature"] = 0.0
    if isinstance(request.get("stop"), str):
        request["stop"] = [request["stop"]]
    written = write_request(read_generation((GOLDEN / name).read_bytes(), PromptLimits(8000)))
    assert written == json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode()


def test_a_whole_text_with_its_tokens():
    """The stream and the whole text are two forms of one generation."""
    *tokens, done = events_of("stream_logprobs.sse")
    text = WholeText(with_tokens=True)
    for token in tokens:
        text.take(token)
    assert json.loads(b"".join(text.answer(done))) == load("generate_response_logprobs.json")


def test_a_whole_text_without_its_tokens():
    """The fields and their order are the model service's."""
    golden = load("generate_response.json")
    *_, done = events_of("stream_plain.sse")
    text = WholeText(with_tokens=False)
    text.take(Token(6, 1, golden["text"]))
    assert list(json.loads(b"".join(text.answer(done))).items()) == list(golden.items())


def test_models_are_read_and_written():
    """The list passes through unchanged."""
    assert models_body(read_models((GOLDEN / "models.json").read_bytes())) == load("models.json")


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_read(name):
    """Code, message, field and advice."""
    golden = load(name)["error"]
    detail = read_error((GOLDEN / name).read_bytes())
    assert detail is not None
    assert detail.model_dump() == golden


def test_both_sides_give_a_code_the_same_status():
    """A client need not know which tier refused it."""
    golden = load("statuses.json")
    ours = {kind.code: status for kind, status in STATUSES.items() if hasattr(kind, "code") and kind.code in golden}
    assert ours == {code: golden[code] for code in ours}
    assert len(ours) >= 5


def test_a_status_is_read_and_passed_on_as_agreed():
    """What one instance says, the page is told, with what the backend adds."""
    instance = read_status((GOLDEN / "status_llm.json").read_bytes())
    body = status_body(
        Ledger().enter([instance], since_s=2.0),
        BackendStatus(load("status_api.json")["backend"]),
        name="7c9e6679f5134bd3a8d1c4b7b5e0a1f2",
        time=load("status_api.json")["time"],
        uptime_s=load("status_api.json")["uptime_s"],
    )
    assert json.dumps(body, separators=(",", ":")) + "\n" == (GOLDEN / "status_api.json").read_text("utf-8")
