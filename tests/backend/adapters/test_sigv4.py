"""Signatures for AWS: those that botocore makes, with the credentials that there are at that moment."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import botocore.auth
import httpx
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from hypothesis import given
from hypothesis import strategies as st

from functions.backend.adapters.http_llm_gateway import HTTPLLMGateway
from functions.backend.adapters.sigv4 import Credentials, SigV4Auth, sign
from functions.backend.domain.errors import LLMMisbehaved, LLMUnavailable
from functions.backend.domain.generation import Generation
from functions.backend.domain.prompt import Prompt, PromptLimits

KEYS = {"AWS_ACCESS_KEY_ID": "AKIATESTING", "AWS_SECRET_ACCESS_KEY": "secret/+=", "AWS_SESSION_TOKEN": "token/+="}
NOW = datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC)


def botocore_says(request: httpx.Request, token: str | None, monkeypatch) -> str:
    """The Authorization header that AWS's own library gives to the same request."""
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: NOW.replace(tzinfo=None))
    theirs = AWSRequest(
        request.method,
        str(request.url),
        data=request.content,
        headers={name: request.headers[name] for name in ("host", "content-type") if name in request.headers},
    )
    signer = botocore.auth.SigV4Auth(BotocoreCredentials("AKIA", "secret", token), "lambda", "eu-west-1")
    signer.add_auth(theirs)
    return theirs.headers["Authorization"]


@pytest.mark.parametrize("token", [None, "session/token+="])
def test_it_signs_as_botocore_does(token, monkeypatch):
    """Any path, query and body, with a port or without one."""
    text = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=8)

    @given(
        path=st.lists(text.filter(lambda part: part not in {".", ".."}), max_size=3),
        query=st.lists(st.tuples(text, text), max_size=3),
        body=st.binary(max_size=40),
        host=st.sampled_from(["x.lambda-url.eu-west-1.on.aws", "127.0.0.1:8123"]),
        kind=st.sampled_from(["application/json", None]),
    )
    def equal(path, query, body, host, kind):
        # Empty segments would be joined by some; no address of ours has any.
        address = f"https://{host}/" + "/".join(quote(part, safe="") for part in path if part)
        url = httpx.URL(address, params=[pair for pair in query if pair[0]] or None)
        headers = {"content-type": kind} if kind else {}
        request = httpx.Request("POST", url, content=body, headers=headers)
        sign(request, Credentials("AKIA", "secret", token), "eu-west-1", "lambda", NOW)
        assert request.headers["authorization"] == botocore_says(request, token, monkeypatch)

    equal()


def asked(environ, answers, moments=(NOW,), body=b"{}"):
    """Send a request at each moment; gives all that went over the wire, and the last answer's body."""
    seen = []

    def transport(request):
        seen.append(request)
        return answers(request)

    async def run():
        clock = {"now": moments[0]}
        auth = SigV4Auth("eu-west-1", environ, lambda: clock["now"])
        async with httpx.AsyncClient(transport=httpx.MockTransport(transport), auth=auth) as client:
            for moment in moments:
                clock["now"] = moment
                async with client.stream("POST", "http://llm/generate/stream", content=body) as answer:
                    unread = not answer.is_stream_consumed
                    last = await answer.aread()
        return last, unread

    return seen, *asyncio.run(run())


def test_the_role_s_credentials_sign_and_the_stream_stays_a_stream():
    """Nothing of the answer is read before whoever asked reads it."""

    async def chunks():
        yield b"a"
        yield b"b"

    seen, last, unread = asked(KEYS, lambda _: httpx.Response(200, content=chunks()))
    assert (last, unread) == (b"ab", True)
    [request] = seen
    assert request.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIATESTING/20260228/eu-west-1/")
    assert request.headers["x-amz-security-token"] == "token/+="
    assert request.content == b"{}"


def test_after_a_restore_credentials_are_asked_for_and_kept_while_they_last():
    """SnapStart has no keys in the variables, but an address; a minute before the end they are renewed."""
    environ = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9001/creds",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "open sesame",
    }
    ends = NOW + timedelta(hours=1)
    fresh = {"AccessKeyId": "ASIA", "SecretAccessKey": "s", "Token": "t", "Expiration": ends.isoformat()}

    def answers(request):
        return httpx.Response(200, json=fresh if request.url.path == "/creds" else {})

    moments = [NOW, ends - timedelta(minutes=2), ends - timedelta(seconds=59)]
    seen, *_ = asked(environ, answers, moments)
    assert [request.url.path for request in seen] == ["/creds", *["/generate/stream"] * 2, "/creds", "/generate/stream"]
    assert seen[0].headers["authorization"] == "open sesame"
    # httpx waits for ever for what has no timeouts.
    assert seen[0].extensions["timeout"] == seen[1].extensions["timeout"]
    assert "Credential=ASIA/" in seen[1].headers["authorization"]


def told_by(stream_url, environ):
    """The events of one generation, asked for with a signature."""

    async def run():
        gateway = HTTPLLMGateway(stream_url, 10, 10, SigV4Auth("eu-west-1", environ, lambda: NOW))
        try:
            return [event async for event in gateway.stream(Generation(Prompt("ROMEO:", PromptLimits(9))), "r-1")]
        finally:
            await gateway.aclose()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("environ", "answer"),
    [({}, None), ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://llm/creds"}, b'{"SecretAccessKey": "hush"}')],
)
def test_without_credentials_the_model_is_not_to_be_had(llm, environ, answer, caplog):
    """The client is not told why; the log is, without the secret."""
    if answer:
        environ = dict.fromkeys(environ, llm.stream_url)
        llm.script = lambda exchange: exchange.answer(answer)
    with pytest.raises(LLMUnavailable, match="cannot be signed"):
        told_by(llm.stream_url, environ)
    assert "AWS_CONTAINER_CREDENTIALS_FULL_URI" in caplog.text or "and no credentials" in caplog.text
    assert "hush" not in caplog.text


def test_a_function_that_refuses_the_signature_is_named(llm):
    """As a Function URL says it: 403, and JSON that is none of the model's."""
    llm.script = lambda exchange: exchange.answer(json.dumps({"Message": "Forbidden"}).encode(), status=403)
    with pytest.raises(LLMMisbehaved, match="LLM_AUTH"):
        told_by(llm.stream_url, KEYS)
