"""Huginn's own functions by our runtime: the model, and the backend in front of it, each in its own Lambda."""

import json
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import pytest

from functions.llm.checkpoints.checkpoint import save_checkpoint
from functions.llm.models import MinGRU, MinGRUConfig
from functions.llm.tokenizers import ByteTokenizer
from local.emulator import Emulator
from tests.undisturbed import undisturbed

# Bytes beyond ASCII would be held back until they are a character.
BODY = {"prompt": "ROMEO:", "max_tokens": 64, "seed": 1, "logit_bias": {str(byte): -100 for byte in range(128, 256)}}
EVENTS = {"accept": "text/event-stream"}
# As the template has it.
TIMEOUT = {"RUNTIME_TIMEOUT_HEADER": "x-huginn-timeout-s"}


def by_runtime(tier: str) -> list[str]:
    return [sys.executable, "-m", "functions.runtime", f"functions.{tier}.handler.app"]


@pytest.fixture(scope="module")
def llm_environment(tmp_path_factory) -> dict[str, str]:
    """A small model, and one cache for all: what the first test's process compiles, the others find."""
    config = MinGRUConfig(vocab_size=256, width=8, hidden=8, layers=1, dropout=0.0)
    model = MinGRU(config, MinGRU.init_params(config, jax.random.key(1)))
    checkpoint = tmp_path_factory.mktemp("ckpts") / "tiny"
    save_checkpoint(checkpoint, model, ByteTokenizer(), "# tiny\n")
    return {
        **TIMEOUT,
        "METRICS_PORT": "0",
        "CKPT_PATH": str(checkpoint),
        "CACHE_PATH": str(tmp_path_factory.mktemp("cache")),
    }


def compiled(environment: dict[str, str]) -> int:
    return sum(path.is_file() for path in Path(environment["CACHE_PATH"]).rglob("*"))


def test_the_snapshot_holds_a_model_that_is_compiled(http, llm_environment):
    """The very first request after it finds the model ready, and nothing is compiled any more, alone or in company."""
    with Emulator(
        by_runtime("llm"), llm_environment, snap_start=True, concurrency=4, max_environments=1, timeout_s=60
    ) as emulator:
        emulator.start_environment()
        while "GET restore/next" not in emulator.environments[0].requests:
            assert emulator.environments[0].alive, emulator.log()
            time.sleep(0.05)
        before = compiled(llm_environment)
        assert http.get(f"{emulator.url}/readyz").status_code == 200
        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(http.post, f"{emulator.url}/generate", json=BODY) for _ in range(4)]
            texts = {answer.result().json()["text"] for answer in answers}
        events = http.post(f"{emulator.url}/generate/stream", json=BODY, headers=EVENTS).text
        requests = emulator.environments[0].requests
    # It was the restored process that answered, in full, all at once and token by token.
    assert requests[:2] == ["GET restore/next", "GET invocation/next"]
    assert requests.count("GET restore/next") == 1
    assert len(texts) == 1
    assert events.count("event: token\n") == 64
    assert events.split("event: ")[-1].startswith("done\n")
    assert before == compiled(llm_environment) > 0


def test_a_checkpoint_that_cannot_be_served_makes_no_snapshot(lambda_client, llm_environment, tmp_path):
    """A version that could not answer is not published: the start fails, and says why."""
    environment = {**llm_environment, "CKPT_PATH": str(tmp_path / "missing")}
    with Emulator(by_runtime("llm"), environment, snap_start=True) as emulator:
        answer = lambda_client(emulator).invoke(FunctionName="function", Payload=b"{}")
        error = json.loads(answer["Payload"].read())
        assert "GET restore/next" not in emulator.environments[0].requests
    assert error["errorType"] == "Runtime.StartUpFailed"
    assert "missing" in error["errorMessage"]


def test_a_setting_that_is_none_is_told_by_its_name(lambda_client):
    """The tier ends itself with a line in its log; Lambda hears the reason, and not an exit code."""
    with Emulator(by_runtime("backend"), {"MAX_PROMPT_CHARS": "many"}) as emulator:
        answer = lambda_client(emulator).invoke(FunctionName="function", Payload=b"{}")
        error = json.loads(answer["Payload"].read())
        log = emulator.log()
    assert error["errorType"] == "SettingsError"
    assert error["errorMessage"].startswith("MAX_PROMPT_CHARS is 'many'")
    assert '"level":"critical"' in log
    assert "Traceback" not in log


def without_time(events):
    """What two equal answers have in common: all but the CPU's time."""
    return re.sub(r'"cpu_seconds":[0-9.e-]+', "", events)


@undisturbed
def test_tokens_through_two_functions(http, llm_environment):
    """From the model's Lambda through the backend's: the same events as from one process, in several chunks."""
    with Emulator(by_runtime("llm"), llm_environment, timeout_s=60) as llm:
        own = {"HUGINN_AUTH": "off", "HUGINN_HOST": "127.0.0.1"}
        environment = {**TIMEOUT, **own, "LLM_URL": f"{llm.url}/generate/stream"}
        with Emulator(by_runtime("backend"), environment, timeout_s=40) as backend:
            response = http.post(f"{backend.url}/api/llm/stream", json=BODY, headers=EVENTS)
            direct = http.post(f"{llm.url}/generate/stream", json=BODY, headers=EVENTS)
            late = http.post(
                f"{backend.url}/api/llm/stream",
                json={**BODY, "max_tokens": 4096},
                headers={**EVENTS, "x-huginn-timeout-s": "0.1"},
            )
            chunks = [data for _, data in backend.invocations[0].arrivals[2:]]
            asked = json.loads(llm.invocations[0].event)
    assert without_time(response.text) == without_time(direct.text)
    assert response.text.count("event: token\n") == 64
    assert response.text.split("event: ")[-1].startswith("done\n")
    assert len(chunks) > 4
    # What the backend has left, less what it needs for itself; the model's own limit is longer.
    assert 35 < float(asked["headers"]["x-huginn-timeout-s"]) < 40
    # Before the first token or after it.
    assert '"code":"time_limit_reached"' in late.text.split("event: ")[-1]
    assert late.status_code == (200 if "event: token" in late.text else 504)
