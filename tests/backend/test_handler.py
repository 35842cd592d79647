"""The Lambda handler: what it loads, and that it serves invocation after invocation."""

import json
import os
import subprocess
import sys

TOKEN = b'event: token\ndata: {"i":6,"id":1,"text":" Ra"}\n\n'
DONE = (
    b'event: done\ndata: {"finish_reason":"stop","usage":{"prompt_tokens":6,"completion_tokens":1,"total_tokens":7},'
    b'"seed":42,"model":"m"}\n\n'
)


def run_python(code, **environ):
    """Give what a fresh interpreter prints last, as JSON; its log may come before."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_the_handler_loads_no_numbers():
    """A web tier starts without arrays and models."""
    loaded = run_python("import functions.backend.handler, sys, json; print(json.dumps(sorted(sys.modules)))")
    assert "functions.backend.adapters.http_llm_gateway" in loaded
    assert not {"jax", "jaxlib", "numpy", "torch"} & set(loaded)


def test_the_inside_knows_no_framework():
    """The domain and the use cases can be read, run and moved without any web framework."""
    loaded = run_python(
        "import sys, json, pkgutil, importlib\n"
        "for name in ('functions.backend.domain', 'functions.backend.application'):\n"
        "    package = importlib.import_module(name)\n"
        "    for module in pkgutil.iter_modules(package.__path__, name + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    assert "functions.backend.application.generate_stream" in loaded
    assert not {"fastapi", "starlette", "pydantic", "httpx", "uvicorn", "anyio"} & set(loaded)


EVENT = {
    "version": "2.0",
    "rawPath": "/api/llm/stream",
    "rawQueryString": "",
    "headers": {"content-type": "application/json", "host": "localhost"},
    "requestContext": {"http": {"method": "POST", "path": "/api/llm/stream", "sourceIp": "127.0.0.1"}},
    "body": '{"prompt": "ROMEO:"}',
    "isBase64Encoded": False,
}
FOR_ALL = {"HUGINN_AUTH": "off", "HUGINN_HOST": "127.0.0.1"}
INVOKE = """
import json, os
from functions.backend.handler import handler
event = json.loads(os.environ["EVENT"])
print(json.dumps([handler(event, None) for _ in range(3)]))
"""


def test_the_handler_serves_one_invocation_after_another(llm):
    """Start-up never runs under Mangum, and yet every invocation reaches the model service."""
    llm.script = lambda exchange: exchange.answer(TOKEN + DONE)
    answers = run_python(INVOKE, EVENT=json.dumps(EVENT), LLM_URL=llm.stream_url, **FOR_ALL)
    assert [(answer["statusCode"], answer["body"]) for answer in answers] == [(200, " Ra")] * 3


def test_everybody_is_asked_unless_it_is_said_otherwise(llm):
    """An environment that says nothing of keys lets nobody in."""
    llm.script = lambda exchange: exchange.answer(TOKEN + DONE)
    answers = run_python(INVOKE, EVENT=json.dumps(EVENT), LLM_URL=llm.stream_url)
    assert [answer["statusCode"] for answer in answers] == [401] * 3
    assert llm.exchanges == []


def test_what_only_some_stores_need_is_not_loaded():
    """A cold start without SQLite, and without DynamoDB, does not wait for them."""
    show = "import functions.backend.handler, sys, json; print(json.dumps(sorted(sys.modules)))"
    loaded = run_python(show)
    assert "functions.backend.adapters.key_stores" in loaded
    assert not {"sqlite3", "botocore", "boto3", "functions.backend.adapters.dynamodb"} & set(loaded)
    loaded = run_python(show, KEY_STORE="dynamodb:keys", AWS_REGION="eu-west-1")
    assert "functions.backend.adapters.dynamodb" in loaded
    assert not {"sqlite3", "botocore", "boto3"} & set(loaded)
