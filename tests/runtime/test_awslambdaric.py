"""AWS's own Python client, against the same emulator: our handlers under it, and its words beside ours."""

import json
import re
import sys

import pytest

from local.emulator import Emulator

AWS = [sys.executable, "-m", "awslambdaric"]


@pytest.mark.parametrize(
    ("tier", "environment", "path"),
    [
        ("frontend", {"BACKEND_URL": "http://127.0.0.1:9"}, "/livez"),
        ("backend", {"LLM_URL": "http://127.0.0.1:9/generate/stream"}, "/livez"),
        ("llm", {"METRICS_PORT": "0", "CACHE_PATH": ""}, "/livez"),
    ],
)
def test_the_buffered_handlers_run_under_awss_client(http, tmp_path, tier, environment, path):
    """Each function's `handler`, made by Mangum, answers through AWS's managed runtime as it does anywhere."""
    if "CACHE_PATH" in environment:
        environment = {**environment, "CACHE_PATH": str(tmp_path)}
    with Emulator([*AWS, f"functions.{tier}.handler.handler"], environment, mode="buffered") as emulator:
        response = http.get(f"{emulator.url}{path}")
    assert response.status_code == 200, emulator.log()
    assert response.json()["status"] == "ok"


def test_llm_generates_under_awss_client(http, tmp_path):
    """A whole text from a cold start in one piece, the model loaded by the first request."""
    environment = {"METRICS_PORT": "0", "CACHE_PATH": str(tmp_path)}
    with Emulator([*AWS, "functions.llm.handler.handler"], environment, mode="buffered", timeout_s=120) as emulator:
        body = {"prompt": "ROMEO:", "max_tokens": 4, "seed": 1}
        answer = http.post(f"{emulator.url}/generate", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] == 4


def test_errors_are_told_in_the_same_words(run, run_plain, http):
    """Of a failure before the start Lambda hears the same from our runtime and from AWS's: where, and in which form."""
    told = {}
    for name, started, path in (("ours", run("app"), "/fail_early"), ("theirs", run_plain("fail"), "/")):
        with started as emulator:
            http.get(f"{emulator.url}{path}")
            invocation = emulator.invocations[0]
            head, _, body = invocation.wire.partition(b"\r\n\r\n")
            request_line = head.split(b"\r\n")[0].replace(invocation.request_id.encode(), b"ID")
            content_type = re.search(rb"content-type: ([^\r]*)", head, re.IGNORECASE)[1]
            told[name] = request_line, content_type, {key: type(value) for key, value in json.loads(body).items()}
    ours, theirs = told["ours"], told["theirs"]
    assert ours[:2] == theirs[:2]
    assert ours[2].items() <= theirs[2].items()
    assert {"errorType", "errorMessage", "stackTrace"} <= ours[2].keys()
