"""The Lambda handler: whole answers through Mangum, and nothing imported that a cold start does not need."""

import asyncio
import base64
import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from mangum import Mangum

from functions.llm.app import build_app
from functions.llm.settings import Settings

REPOSITORY = Path(__file__).parents[2]
# Standard output is for what the script finds.
QUIET = {"LOG_FORMAT": "text", "LOG_LEVEL": "error", "PATH": "/usr/bin:/bin"}

# Of training, of drawing, of benchmarks and of tests; scipy and tensorstore are large, and come along with the others.
FORBIDDEN = [
    *("chex", "flax", "matplotlib", "optax", "orbax", "pandas", "plotext", "rich", "scipy", "tensorstore", "torch"),
    *("beartype", "httpx", "hypothesis", "onnxruntime", "pytest", "uvicorn"),
    # Of a tokenizer's hub; the image leaves them out, and filelock, which jax takes where it is there.
    *("fsspec", "hf_xet", "httpx2", "huggingface_hub", "tqdm", "truststore", "yaml"),
    # Of conversations, where the prompt is a text.
    "jinja2",
    # Of checkpoints in S3, where the checkpoint is in a folder.
    *("boto3", "botocore", "s3transfer", "urllib3"),
]


@pytest.fixture
def handler(checkpoints_folder):
    """As handler.py makes it: without a lifespan, in an event loop of its own."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield Mangum(build_app(Settings(checkpoints_folder / "tiny-char", metrics_port=0)), lifespan="off")
    loop.run_until_complete(loop.shutdown_default_executor())
    asyncio.set_event_loop(None)
    loop.close()


def function_url(path, body=None, method="POST", **headers):
    """An event of a function URL or an HTTP API (payload format 2.0)."""
    return {
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "",
        "headers": {"content-type": "application/json", "host": "x.lambda-url.eu-west-1.on.aws", **headers},
        "requestContext": {"http": {"method": method, "path": path, "sourceIp": "127.0.0.1", "protocol": "HTTP/1.1"}},
        "body": body, "isBase64Encoded": False,
    }  # fmt: skip


def rest_api(path, body):
    """An event of a REST API (payload format 1.0), with the body in base64."""
    return {
        "resource": path, "path": path, "httpMethod": "POST", "headers": {"content-type": "application/json"},
        "multiValueHeaders": {"content-type": ["application/json"]}, "queryStringParameters": None,
        "multiValueQueryStringParameters": None, "requestContext": {"identity": {"sourceIp": "127.0.0.1"}},
        "body": base64.b64encode(body.encode()).decode(), "isBase64Encoded": True,
    }  # fmt: skip


def test_a_whole_answer_comes_from_either_kind_of_event(handler):
    """The model is loaded by the first request, and the text is the same by both ways."""
    body = json.dumps({"prompt": "the raven é", "max_tokens": 9, "seed": 1})
    answers = [handler(event, None) for event in (function_url("/generate", body), rest_api("/generate", body))]
    assert [answer["statusCode"] for answer in answers] == [200, 200]
    first, second = (json.loads(answer["body"]) for answer in answers)
    # What a text took of the CPU is the one thing that differs.
    assert first["usage"].pop("cpu_seconds") > 0 < second["usage"].pop("cpu_seconds")
    assert first == second
    assert first["usage"]["completion_tokens"] == 9
    assert first["model"] == "tiny-char"


def test_a_stream_comes_whole(handler):
    """Mangum buffers; the events are all there."""
    body = json.dumps({"prompt": "the raven", "max_tokens": 9, "seed": 1})
    answer = handler(function_url("/generate/stream", body, accept="text/event-stream"), None)
    assert answer["statusCode"] == 200
    assert answer["body"].count("event: token\n") == 9
    assert answer["body"].count("event: done\n") == 1


def test_refusals_come_as_they_do_from_a_server(handler):
    """Status, JSON, request id."""
    answer = handler(function_url("/generate", "{", **{"x-request-id": "abc"}), None)
    assert (answer["statusCode"], answer["headers"]["x-request-id"]) == (400, "abc")
    assert json.loads(answer["body"])["error"]["code"] == "invalid_json"


def test_being_asked_whether_it_is_ready_makes_it_so(handler):
    """Without a lifespan nobody else begins to load."""
    event = function_url("/readyz", method="GET")
    assert handler(event, None)["statusCode"] == 503
    for _ in range(600):
        if handler(event, None)["statusCode"] == 200:
            break
        asyncio.get_event_loop().run_until_complete(asyncio.sleep(0.1))
    assert handler(event, None)["statusCode"] == 200


def test_serving_a_request_imports_nothing_that_only_training_needs(checkpoints_folder):
    """In a fresh process, from the import to the answer: nothing that trains, draws, or is a peer's."""
    event = function_url("/generate", json.dumps({"prompt": "the raven", "max_tokens": 3, "logprobs": 2}))
    script = f"""
        import asyncio, json, sys
        asyncio.set_event_loop(asyncio.new_event_loop())
        from functions.llm.handler import handler
        print(handler({event!r}, None)["statusCode"])
        print(*sorted(set({FORBIDDEN!r}) & {{name.split(".")[0] for name in sys.modules}}))
        print(*(name for name in sys.modules if name.startswith("functions.llm.training")))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
        env={"CKPT_PATH": str(checkpoints_folder / "tiny-char"), "METRICS_PORT": "0", **QUIET},
    )
    assert run.stdout.split() == ["200"]


def test_a_server_needs_nothing_of_lambda():
    """What the handler imports is what every server waits for; the adapter for Lambda comes with the first event."""
    script = "import sys, functions.llm.handler; print('mangum' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
        env={**QUIET},
    )
    assert run.stdout.split() == ["False"]


def test_the_model_is_loaded_while_the_web_is_imported(checkpoints_folder):
    """When the app is there the model is too, or is on its way; and the process ends without a crash."""
    script = """
        import sys
        import functions.llm.inference.warm_up as warm_up
        begin_early = warm_up.DefaultModel.begin_early
        def watched(self):
            print("fastapi" in sys.modules)
            begin_early(self)
        warm_up.DefaultModel.begin_early = watched
        from functions.llm.handler import default
        print(default._thread is not None)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env={"CKPT_PATH": str(checkpoints_folder / "tiny-char"), "METRICS_PORT": "0", **QUIET},
    )
    assert (run.returncode, run.stdout.split(), run.stderr) == (0, ["False", "True"], "")


def test_a_checkpoint_that_is_not_there_ends_the_server_at_once(checkpoints_folder):
    """Whoever waits for a container to be healthy is not left to wait: one line says what is wrong, and what helps."""
    run = subprocess.run(
        [sys.executable, "-m", "uvicorn", "functions.llm.handler:app", "--port", "0"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=checkpoints_folder,
        env={"CKPT_PATH": "typo", "METRICS_PORT": "0", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY)},
    )
    line = json.loads(run.stdout)
    assert (line["level"], run.stderr, run.returncode) == ("critical", "", 3)
    assert f"CKPT_PATH is 'typo', and {checkpoints_folder}/typo/config.json" in line["message"]
    assert "tiny-char" in line["message"]


def test_ctrl_c_while_the_model_is_being_compiled_ends_cleanly(checkpoints_folder):
    """A process that ended under the compiler would be aborted by it, with a core dump for a farewell."""
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "functions.llm.handler:app", "--port", "0"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        env={"CKPT_PATH": str(checkpoints_folder / "tiny-char"), "METRICS_PORT": "0", "PATH": "/usr/bin:/bin"},
    )
    try:
        said = next(line for line in process.stdout if "startup complete" in line)
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        # Or it was left to it: on a machine that is busy even a small program takes longer than who stops may wait.
        assert process.wait(60) in {0, 128 + signal.SIGTERM}, said + rest
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def test_a_compiler_that_does_not_end_is_not_waited_for(checkpoints_folder):
    """Who stops a container kills it after ten seconds; a large model takes minutes to compile."""
    script = """
        import threading
        import uvicorn
        from functions.llm.inference.programs import Programs

        def prepare(self):
            threading.Event().wait(600)
            yield "never"

        Programs.prepare = prepare
        uvicorn.run("functions.llm.handler:app", port=0)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        env={"CKPT_PATH": str(checkpoints_folder / "tiny-char"), "METRICS_PORT": "0", "PATH": "/usr/bin:/bin"},
    )
    try:
        assert next(line for line in process.stdout if "startup complete" in line)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
