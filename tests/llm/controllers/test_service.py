"""The other routes, the request's id, the metrics, and what the service says of itself."""

import asyncio
import re
import shutil
import socket
import threading
import time

import httpx
import pytest

from functions.llm.app import build_app
from functions.llm.checkpoints.checkpoint import load_checkpoint
from functions.llm.inference.model_store import ModelStore
from functions.llm.inference.warm_up import DefaultModel
from functions.llm.settings import Settings


@pytest.fixture(scope="module")
def document(service):
    return service.http.get("/openapi.json").json()


def test_models_are_listed_with_the_default_marked(service, served_folder):
    """What can be asked for, by name."""
    models = service.http.get("/models").json()["models"]
    assert [model["name"] for model in models] == ["breaking", "slow", "tiny-byte", "tiny-char"]
    assert [model["default"] for model in models] == [False, False, False, True]
    assert models[3]["digest"] == load_checkpoint(served_folder / "tiny-char").digest


def test_every_listed_model_answers_by_its_name(service):
    """More of them than stay in memory: each is loaded when it is asked for."""
    for name in ["tiny-char", "tiny-byte", "slow", "tiny-char"]:
        answer = service.http.post("/generate", json={"prompt": "a", "max_tokens": 2, "model": name}).json()
        assert answer["model"] == name
    assert service.metric("huginn_llm_model_parameters", model="tiny-char") > 0
    assert service.metric("huginn_llm_model_parameters", model="tiny-byte") == 0


def test_alive_and_ready(service):
    """Both answer when the model is loaded."""
    assert service.http.get("/livez").json() == {"status": "ok"}
    assert service.http.get("/readyz").json() == {"status": "ready", "model": "tiny-char"}


def test_no_request_waits_for_a_model_longer_than_it_may(served_folder):
    """A checkpoint may be minutes away; the client hears in time that it is still coming."""
    there = threading.Event()

    def load(path):
        there.wait(60)
        return load_checkpoint(path)

    app = build_app(Settings(metrics_port=0), DefaultModel(ModelStore(served_folder / "tiny-char", load=load)))

    async def ask():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://llm") as http:
            body = {"prompt": "a", "max_tokens": 1}
            early = await http.post("/generate", json=body, headers={"x-huginn-timeout-s": "0.1"})
            there.set()
            return early, await http.post("/generate", json=body)

    early, late = asyncio.run(ask())
    assert (early.status_code, early.json()["error"]["code"]) == (503, "not_ready")
    assert "tiny-char is still being loaded" in early.json()["error"]["message"]
    assert early.headers["retry-after"]
    assert late.status_code == 200


def test_without_its_model_the_service_lives_and_says_what_is_missing(serving, served_folder, tmp_path):
    """/livez answers, /readyz tells the reason, and once the checkpoint is there it is served."""
    with serving(Settings(ckpt_path=tmp_path / "later")) as service:
        assert service.http.get("/livez").status_code == 200
        deadline = time.monotonic() + 60
        while "no such folder" not in service.http.get("/readyz").json()["error"]["message"]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        for response in (service.http.get("/readyz"), service.http.post("/generate", json={"prompt": "a"})):
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "not_ready"
            assert response.headers["retry-after"]
        shutil.copytree(served_folder / "tiny-char", tmp_path / "later")
        assert service.http.post("/generate", json={"prompt": "a", "max_tokens": 1}).json()["model"] == "later"
        while service.http.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_who_asks_a_model_that_cannot_be_loaded_is_not_told_of_our_inside(serving, served_folder, tmp_path, caplog):
    """No path, no digest, no address: what to do. The reason is in the log, with the id that the client has."""
    shutil.copytree(served_folder / "tiny-char", tmp_path / "damaged")
    weights = tmp_path / "damaged" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    asked = [("POST", "/generate", "text"), ("POST", "/generate/stream", "text"), ("POST", "/tokenize", "text"),
             ("POST", "/detokenize", None), ("GET", "/tokenizer_info", None)]  # fmt: skip
    with serving(Settings(ckpt_path=tmp_path / "damaged")) as service:
        for method, path, prompt in asked:
            body = None if method == "GET" else {"prompt": prompt} if prompt else {"tokens": [0]}
            response = service.http.request(method, path, json=body, headers={"x-request-id": f"raven{path}"})
            error = response.json()["error"]
            assert (response.status_code, error["code"], error["retryable"]) == (503, "not_ready", True)
            assert error["message"] == (
                "The model cannot be loaded. Try again in a while; if that does not help, tell the operator: the log "
                f"of the llm function has the reason, request id raven{path}."
            )
            [reason] = [each for each in caplog.messages if each.startswith(f"Request raven{path}: ")]
            assert f"{weights}: SHA-256 is" in reason


def test_a_sane_request_id_is_kept_and_any_other_replaced(service):
    """On every answer, success or not."""
    for path, status in (("/livez", 200), ("/nowhere", 404)):
        response = service.http.get(path, headers={"x-request-id": "page-1:2/3"})
        assert (response.status_code, response.headers["x-request-id"]) == (status, "page-1:2/3")
    for insane in ("", "a b", "x" * 129, "é".encode(), 'a"b'):
        made = service.http.get("/livez", headers={"x-request-id": insane}).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f-]{36}", made)


def test_metrics_tell_requests_tokens_times_and_the_process(service):
    """Two requests of known sizes move the counters by as much; times and memory are there."""
    names = ["huginn_llm_prompt_tokens_total", "huginn_llm_generated_tokens_total",
             "huginn_llm_time_to_first_token_seconds_count", "huginn_llm_inter_token_seconds_count"]  # fmt: skip
    before = [service.metric(name) for name in names]
    for _ in range(2):
        service.http.post("/generate", json={"prompt": "abc", "max_tokens": 7, "echo": True})
    # The answer is sent before its end is counted.
    service.wait_for(names[0], before[0] + 6)
    assert [service.metric(name) - was for name, was in zip(names, before, strict=True)] == [6, 14, 2, 12]
    assert service.metric("huginn_llm_requests_total", outcome="length") >= 2
    assert service.metric("process_resident_memory_bytes") > 1e6
    assert service.metric("process_cpu_seconds_total") > 0
    page = httpx.get(f"http://127.0.0.1:{service.metrics_port}/metrics", timeout=30).text
    assert 'huginn_llm_build_info{jax="' in page
    assert 'huginn_llm_model_size_bytes{model="tiny-char"}' in page


def test_a_taken_metrics_port_stops_the_start_and_is_named(served_folder):
    """Rather than a service whose metrics nobody finds."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        app = build_app(Settings(served_folder / "tiny-char", metrics_port=port, metrics_host="127.0.0.1"))

        async def start():
            async with app.router.lifespan_context(app):
                pass

        with pytest.raises(OSError, match=rf"127\.0\.0\.1:{port}.*METRICS_PORT"):
            asyncio.run(start())


class TestOpenAPI:
    """The document is what the service does."""

    def test_it_names_every_route_and_no_other_site(self, document):
        """And no page that loads scripts from elsewhere."""
        assert set(document["paths"]) == {
            *("/generate", "/generate/stream", "/models", "/livez", "/readyz", "/status"),
            *("/check", "/tokenize", "/detokenize", "/tokenizer_info"),
        }

    def test_pages_of_other_sites_are_not_served(self, service):
        """FastAPI's own pages load their scripts from a CDN."""
        assert service.http.get("/docs").status_code == service.http.get("/redoc").status_code == 404

    @pytest.mark.parametrize(
        ("method", "path", "options"),
        [
            ("post", "/generate", {"json": {"prompt": "a", "max_tokens": 1, "logprobs": 1}}),
            ("post", "/generate/stream", {"json": {"prompt": "a", "max_tokens": 1}}),
            ("post", "/generate/stream", {"json": {"prompt": "a"}, "headers": {"accept": "text/event-stream"}}),
            ("post", "/generate/stream", {"json": {"prompt": "a"}, "headers": {"accept": "image/png"}}),
            ("post", "/generate", {"content": b"{", "headers": {"content-type": "application/json"}}),
            ("post", "/generate", {"json": {"prompt": "a", "model": "ghost"}}),
            ("post", "/generate", {"content": b"x" * 2_000_000, "headers": {"content-type": "application/json"}}),
            ("post", "/generate", {"content": b"x"}),
            ("post", "/generate", {"json": {"prompt": ""}}),
            ("post", "/generate", {"json": {"prompt": "l", "model": "breaking"}}),
            ("post", "/tokenize", {"json": {"prompt": "a"}}),
            ("post", "/tokenize", {"json": {"prompt": "a", "model": "ghost"}}),
            ("post", "/tokenize", {"json": {"prompt": {"messages": []}}}),
            ("post", "/detokenize", {"json": {"tokens": [0]}}),
            ("post", "/detokenize", {"json": {"tokens": [100_000]}}),
            ("get", "/tokenizer_info", {}),
            ("get", "/tokenizer_info?model=ghost", {}),
            ("get", "/models", {}),
            ("get", "/livez", {}),
            ("get", "/readyz", {}),
        ],
    )
    def test_every_answer_is_one_that_it_promises(self, service, document, method, path, options):
        """Status and media type are in the document, and every promised field is in the answer."""
        response = service.http.request(method, path, **options)
        promised = document["paths"][path.partition("?")[0]][method]["responses"][str(response.status_code)]["content"]
        media_type = response.headers["content-type"].partition(";")[0]
        assert media_type in promised
        if media_type == "application/json":
            schema = document["components"]["schemas"][promised[media_type]["schema"]["$ref"].rpartition("/")[2]]
            assert set(schema["required"]) <= response.json().keys() <= schema["properties"].keys()

    def test_the_body_is_described_field_by_field(self, document):
        """Unknown fields are refused, and so says the schema."""
        for path in ("/generate", "/generate/stream"):
            schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
            assert schema["required"] == ["prompt"]
            assert schema["additionalProperties"] is False
            assert schema["properties"]["temperature"]["maximum"] == 10
            assert len(schema["properties"]) == 18


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "text/plain"), ("*/*", "text/plain"), ("text/*", "text/plain"), ("text/event-stream", "text/event-stream"),
        ("text/event-stream, */*", "text/event-stream"), ("text/plain;q=0.5, text/event-stream", "text/event-stream"),
        ("text/event-stream;q=0.5, */*", "text/plain"), ("text/plain;q=0, */*", "text/event-stream"),
        ("TEXT/Event-Stream ; q=1.0", "text/event-stream"), ("application/json, text/*;q=0.1", "text/plain"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/plain"),
    ],
)  # fmt: skip
def test_the_accept_header_chooses_the_form(service, accept, form):
    """By quality, then by how exactly a form is named; plain text when it does not matter."""
    response = service.http.post("/generate/stream", json={"prompt": "a", "max_tokens": 1}, headers={"accept": accept})
    assert response.headers["content-type"].partition(";")[0] == form
