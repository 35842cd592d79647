"""What every response carries, and what becomes of a failure that nobody expected."""

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import StreamingResponse
from starlette.routing import Route

from functions.frontend.envelope import Envelope
from tests.frontend.loopback import serve


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/livez"), ("GET", "/nowhere"), ("PUT", "/"), ("POST", "/"), ("GET", "/api/llm/models")],
)
def test_every_response_has_the_security_headers(client, method, path):
    """Pages, JSON, errors and relayed answers alike."""
    headers = client.request(method, path).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "connect-src", "form-action")} == {"'self'"}
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cache-control"]


def test_a_request_id_is_kept_or_made(client):
    """The client's own where it is sane, a new one where there is none or it could forge a line of the log."""
    assert client.get("/livez", headers={"x-request-id": "raven-1.2:3"}).headers["x-request-id"] == "raven-1.2:3"
    made = [client.get("/livez").headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]
    for odd in ("a b", "x" * 129, "é".encode(), "<b>"):
        assert len(client.get("/livez", headers={b"x-request-id": odd}).headers["x-request-id"]) == 32


async def _fail(_):
    raise RuntimeError("planted")


async def _fail_within(_):
    async def chunks():
        yield b"begun"
        await asyncio.sleep(0.05)
        raise RuntimeError("planted")

    return StreamingResponse(chunks())


def test_an_unexpected_failure_is_an_answer_in_words():
    """500 with the request id that the log has, and with the security headers; nothing of the exception."""
    app = Starlette(routes=[Route("/", _fail)], middleware=[Middleware(Envelope)])
    with serve(app) as url:
        response = httpx.get(url, headers={"x-request-id": "raven-9"}, timeout=30, trust_env=False)
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal"
    assert "raven-9" in response.json()["error"]["message"]
    assert "planted" not in response.text
    assert "content-security-policy" in response.headers


def test_an_unexpected_failure_within_an_answer_breaks_it():
    """Once the answer has begun, an end that looks like one would be a lie."""
    app = Starlette(routes=[Route("/", _fail_within)], middleware=[Middleware(Envelope)])
    with serve(app) as url, pytest.raises(httpx.RemoteProtocolError):
        httpx.get(url, timeout=30, trust_env=False)
