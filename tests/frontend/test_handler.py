"""The frontend as a Lambda function, in an interpreter of its own: the handler reads its environment when imported."""

import base64
import json
import subprocess
import sys

import pytest

from tests.frontend.fake_backend import Script, token_events
from tests.unused_ports import unused_address

CALL = """
import json, sys
from functions.frontend.handler import handler
print(json.dumps([handler(event, None) for event in json.load(sys.stdin)]))
"""


def _event(path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> dict:
    """What a Function URL sends."""
    return {
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "", "headers": headers,
        "requestContext": {"http": {"method": method, "path": path, "sourceIp": "127.0.0.1"}, "stage": "$default"},
        "body": None if body is None else base64.b64encode(body).decode(), "isBase64Encoded": body is not None,
    }  # fmt: skip


def _call(*events: dict, **environ: str) -> list[dict]:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:There is no current event loop", "-c", CALL],
        input=json.dumps(events), env={"PATH": "", **environ}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_one_process_answers_one_invocation_after_another():
    """The page, a script, the icon and an error, all of them as text."""
    page, again, missing, icon = _call(
        _event("/", **{"accept-language": "fr"}), _event("/"), _event("/nowhere"), _event("/static/any/raven.svg")
    )
    assert [answer["statusCode"] for answer in (page, again, missing, icon)] == [200, 200, 404, 200]
    assert not any(answer["isBase64Encoded"] for answer in (page, again, missing, icon))
    assert 'lang="fr"' in page["body"]
    assert 'lang="en"' in again["body"]
    assert icon["body"].startswith("<svg")
    assert "script-src 'self'" in page["headers"]["content-security-policy"]


def test_there_is_no_status_view_there():
    """Neither the view nor a link to it, nor its figures."""
    page, view, figures = _call(_event("/"), _event("/status"), _event("/api/status"), AWS_LAMBDA_FUNCTION_NAME="page")
    assert [answer["statusCode"] for answer in (page, view, figures)] == [200, 404, 404]
    assert "/status" not in page["body"]


def test_a_reader_has_a_session_there_too():
    """For https alone, as CloudFront has the page; the scripts renew it."""
    secret = {"SESSION_SECRET": "s" * 32}
    page, renewed = _call(_event("/", **{"x-forwarded-proto": "https"}), _event("/session", "POST", b""), **secret)
    assert [answer["statusCode"] for answer in (page, renewed)] == [200, 200]
    for answer in (page, renewed):
        [cookie] = answer["cookies"]
        assert cookie.startswith("huginn_session=v1.")
    assert "Secure" in page["cookies"][0]


def test_the_relay_answers_there_too():
    """A backend that is down is an error in words, and the function lives on."""
    ask = _event("/api/llm/stream", "POST", b'{"prompt": "a"}', **{"content-type": "application/json"})
    answers = _call(ask, ask, _event("/livez"), BACKEND_URL=unused_address())
    assert [answer["statusCode"] for answer in answers] == [502, 502, 200]
    assert json.loads(answers[1]["body"])["error"]["code"] == "backend_unavailable"


def test_a_broken_answer_never_seems_whole_there_either(backend):
    """One response is one body: what came before the break is not sent as if it were everything."""
    backend.scripts["/api/llm/stream"] = Script(
        200, {"content-type": "text/event-stream"}, token_events([" a raven"]), breaks=True
    )
    ask = _event("/api/llm/stream", "POST", b'{"prompt": "a"}', **{"content-type": "application/json"})
    broken, alive = _call(ask, _event("/livez"), BACKEND_URL=backend.url)
    assert (broken["statusCode"], alive["statusCode"]) == (500, 200)
    assert "raven" not in broken["body"]


@pytest.mark.parametrize("environ", [{"BACKEND_URL": "nowhere"}, {"BACKEND_ULR": "http://backend"}])
def test_a_wrong_environment_stops_the_start_and_is_named(environ):
    """At import, before any request."""
    with pytest.raises(AssertionError, match=next(iter(environ))):
        _call(_event("/"), **environ)
