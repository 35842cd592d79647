"""The llm function reads the golden requests, and writes the golden answers, streams and errors, to the byte."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import jax
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from functions.llm.checkpoints.checkpoint import Checkpoint
from functions.llm.controllers.accept import accepted_form
from functions.llm.controllers.errors import Problem, answer_http_exception, problem_of
from functions.llm.controllers.event_stream import EventStream
from functions.llm.controllers.health import health_router
from functions.llm.controllers.plain_text import PlainText
from functions.llm.controllers.request_body import read_json_body
from functions.llm.controllers.status import Status
from functions.llm.controllers.whole_answer import answer_json
from functions.llm.controllers.wire import GenerateAnswer, GenerateBody, ModelAnswer, ModelsAnswer, TokenEvent
from functions.llm.inference.errors import (
    DeadlineExceededError,
    ModelNotFoundError,
    PromptTooLongError,
    QueueFullError,
    SlowReaderError,
)
from functions.llm.inference.generation import Alternative, Done, Generation, GenerationRequest, Scores, Token
from functions.llm.inference.model_store import ModelStore
from functions.llm.inference.sampling import SamplingOptions
from functions.llm.inference.served_model import ServedModel
from functions.llm.inference.warm_up import DefaultModel
from functions.llm.models import LSTM, LSTMConfig
from functions.llm.tokenizers import CharTokenizer

GOLDEN = Path(__file__).parent / "golden"
REQUEST_ID = "0f8fad5b-d9cb-469f-a165-70867728950e"


def golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


class TestRequests:
    def test_a_minimal_request_has_the_defaults(self):
        """Everything but the prompt may be left out."""
        asked = GenerateBody.from_json(golden("generate_request_minimal.json")).to_request(drawn_seed=11)
        assert asked == GenerationRequest("ROMEO:", 256, SamplingOptions(temperature=0.8), seed=11)

    def test_a_full_request_is_read_field_by_field(self):
        """Nothing is dropped, and its own seed wins over a drawn one."""
        body = GenerateBody.from_json(golden("generate_request_full.json"))
        assert body.model == "muninn-char"
        assert body.model_fields_set == set(GenerateBody.model_fields)
        assert body.to_request(drawn_seed=11) == GenerationRequest(
            prompt="Où est le corbeau ?",
            max_tokens=64,
            sampling=SamplingOptions(
                temperature=0.7,
                top_k=40,
                top_p=0.95,
                min_p=0.05,
                repetition_penalty=1.1,
                presence_penalty=0.2,
                frequency_penalty=-0.1,
                penalty_decay=0.996,
                logit_bias={3: -100.0, 7: 1.5},
            ),
            seed=2**63 - 1,
            stop=("\n\n", "FIN"),
            stop_token_ids=frozenset({5}),
            logprobs=2,
            echo=True,
            ignore_eos=True,
        )

    def test_a_prompt_may_be_token_ids_and_a_stop_string_may_stand_alone(self):
        """The two fields that have two forms."""
        asked = GenerateBody.from_json(golden("generate_request_tokens.json")).to_request(drawn_seed=11)
        assert asked == GenerationRequest(
            (18, 47, 56, 57, 58), 3, SamplingOptions(temperature=0.0), seed=0, stop=("\n",)
        )


PLAIN = [
    Token(6, 1, " Ra"),
    Token(7, 195, ""),
    Token(8, 185, "ù"),
    Token(9, 10, '\n"é\\" 🐦\u200d⬛'),
    Done("length", 6, 4, seed=42, model="muninn-char", cached_prompt_tokens=5, cpu_seconds=0.00420301),
]
LOGPROBS = [
    Token(0, 54, "R", Scores(None, ())),
    Token(1, 27, "O", Scores(-0.25, (Alternative(27, "O", -0.25), Alternative(13, "A", -1.875)))),
    Token(2, 25, "M", Scores(-2.5, (Alternative(1, "é", -0.125), Alternative(25, "M", -2.5)))),
    Done("length", prompt_tokens=2, completion_tokens=1, seed=0, model="muninn-char", cpu_seconds=1.25),
]
BYTES = [
    Token(0, 195, "", Scores(None, (), b"\xc3")),
    Token(
        1, 185, "ù", Scores(-0.25, (Alternative(185, "\ufffd", -0.25, b"\xb9"), Alternative(9, "a", -1.875)), b"\xb9")
    ),
    Token(2, 3, "", Scores(-0.5, (Alternative(3, "<|endanswer|>", -0.5),), b"<|endanswer|>")),
    Done("length", prompt_tokens=2, completion_tokens=1, seed=0, model="muninn-char", cpu_seconds=1.25),
]
OFFSETS = [
    Token(1, 40, "y", Scores(-0.25, ())),
    Token(2, 41, "", Scores(-0.5, (), b"e")),
    Token(3, 42, "es", Scores(-0.75, (), b"s", 2)),
    Token(4, 43, "", Scores(-1.0, (), b",")),
    Done("stop", prompt_tokens=1, completion_tokens=4, seed=0, model="muninn-char", cpu_seconds=1.25),
]
STOP = [
    Token(3, 40, "y"),
    Token(4, 41, ""),
    Token(5, 42, "es,"),
    Token(6, 0, ""),
    Done("stop", prompt_tokens=3, completion_tokens=4, seed=2**63 - 1, model="muninn-char"),
]


class TestAnswers:
    @pytest.mark.parametrize(
        ("name", "events"),
        [("plain", PLAIN), ("logprobs", LOGPROBS), ("bytes", BYTES), ("offsets", OFFSETS), ("stop", STOP)],
    )
    def test_streams(self, name, events):
        """To the byte, in one batch or in several."""
        form = EventStream()
        assert form.encode(events) == golden(f"stream_{name}.sse")
        assert b"".join(form.encode([event]) for event in events) == golden(f"stream_{name}.sse")

    def test_a_stream_that_fails(self):
        """The error is its last event."""
        form, problem = EventStream(), problem_of(RuntimeError("out of memory"), REQUEST_ID)
        assert form.encode([Token(6, 1, " th")]) + form.encode_error(problem) == golden("stream_error.sse")

    def test_plain_text(self):
        """The same events, the text alone."""
        assert PlainText().encode(PLAIN) == golden("stream_plain.txt")

    def test_whole_answers(self):
        """With the tokens where log-probabilities were asked for."""
        short = [*PLAIN[:3], replace(PLAIN[3], text="\n"), PLAIN[4]]
        assert answer_json(short) == json.loads(golden("generate_response.json"))
        assert answer_json(LOGPROBS) == json.loads(golden("generate_response_logprobs.json"))

    def test_the_documented_types_are_those_answers(self):
        """What OpenAPI promises is neither more nor less than what is sent."""
        for name in ("generate_response.json", "generate_response_logprobs.json"):
            body = golden(name)
            assert GenerateAnswer.model_validate_json(body, extra="forbid").model_dump(
                mode="json", exclude_unset=True
            ) == json.loads(body)
        for line in (
            b"".join(map(golden, ("stream_logprobs.sse", "stream_bytes.sse", "stream_offsets.sse")))
            .decode()
            .splitlines()
        ):
            if line.startswith('data: {"i"'):
                TokenEvent.model_validate_json(line.removeprefix("data: "), extra="forbid")

    def test_the_list_of_models(self):
        """Every field, and the default marked."""
        listed = json.loads(golden("models.json"))
        assert ModelsAnswer(models=[ModelAnswer(**model) for model in listed["models"]]).model_dump() == listed


def raised(function, *args) -> Exception:
    with pytest.raises(Exception) as error:  # noqa: PT011 - which one it is, is what the golden file says
        function(*args)
    return error.value


def http_request(method="POST", path="/generate", **headers) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": raw, "query_string": b"", "server": ("x", 80)}
    return Request(scope)


def http_problem(request: Request, error: HTTPException) -> tuple[int, bytes]:
    response = asyncio.run(answer_http_exception(request, error))
    return response.status_code, response.body


def not_ready() -> Exception:
    """What /readyz raises while the model is being loaded, for as long as this takes to ask."""
    default = DefaultModel(ModelStore(Path("muninn-char"), load=None))
    default.begin = lambda: None
    readyz = next(route.endpoint for route in health_router(default).routes if route.path == "/readyz")
    return raised(asyncio.run, readyz())


def invalid_prompt() -> Exception:
    tokenizer = CharTokenizer.from_chars(map(chr, range(65)))
    config = LSTMConfig(vocab_size=65, emb=2, hid=2, layers=1)
    model = LSTM(config, LSTM.init_params(config, jax.random.key(0)))
    served = ServedModel.of(Checkpoint("muninn-char", model, tokenizer, "", 0, Path()))
    return raised(Generation, served, GenerationRequest((65,), 1, SamplingOptions(), 0))


def test_a_status_is_written_as_agreed():
    """Field by field, in order."""
    assert Status.model_validate_json(golden("status_llm.json"), strict=True).model_dump_json() == (
        golden("status_llm.json").decode().strip()
    )


PROBLEMS = {
    "invalid_json": lambda: raised(GenerateBody.from_json, b""),
    "invalid_request": lambda: raised(GenerateBody.from_json, b'{"prompt": "a", "temperature": -1}'),
    "invalid_prompt": invalid_prompt,
    "model_not_found": lambda: ModelNotFoundError("ghost", ("lstm-novels", "muninn-char")),
    "not_acceptable": lambda: raised(accepted_form, "image/png"),
    "body_too_large": lambda: raised(
        asyncio.run, read_json_body(http_request(content_type="application/json", content_length="10000000"))
    ),
    "unsupported_media_type": lambda: raised(asyncio.run, read_json_body(http_request(content_type="text/csv"))),
    "prompt_too_long": lambda: PromptTooLongError(40_000, 32_768),
    "internal": lambda: RuntimeError("out of memory"),
    "not_ready": not_ready,
    "queue_full": lambda: QueueFullError(64, 0.0),
    "deadline_exceeded": lambda: DeadlineExceededError(600.0),
    "slow_reader": SlowReaderError,
}
ROUTING = {
    "not_found": (http_request(path="/nowhere"), HTTPException(404)),
    "method_not_allowed": (http_request("GET"), HTTPException(405, headers={"Allow": "POST"})),
}


class TestErrors:
    @pytest.mark.parametrize("code", PROBLEMS)
    def test_what_went_wrong_is_worded_as_agreed(self, code):
        """Status, code, message, field, retryable."""
        problem = problem_of(PROBLEMS[code](), REQUEST_ID)
        assert isinstance(problem, Problem)
        assert json.loads(problem.to_json()) == json.loads(golden(f"error_{code}.json"))
        assert problem.status == json.loads(golden("statuses.json"))[code]

    @pytest.mark.parametrize("code", ROUTING)
    def test_what_the_router_refuses_is_worded_as_agreed(self, code):
        """The same JSON as everything else."""
        status, body = http_problem(*ROUTING[code])
        assert json.loads(body) == json.loads(golden(f"error_{code}.json"))
        assert status == json.loads(golden("statuses.json"))[code]

    def test_every_code_has_its_golden_error(self):
        """And every golden error is tested here."""
        files = {path.stem.removeprefix("error_") for path in GOLDEN.glob("error_*.json")}
        assert files == PROBLEMS.keys() | ROUTING.keys() == json.loads(golden("statuses.json")).keys()
