"""Requests signed for AWS (Signature Version 4), which a Function URL with AWS_IAM asks for.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import hashlib
import hmac
import json
import re
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx

ALGORITHM = "AWS4-HMAC-SHA256"

# Lambda renews credentials long before they end; a request that is on its way must still find them good.
_RENEW_BEFORE = timedelta(minutes=1)


class NoCredentialsError(httpx.TransportError):
    """There is nothing to sign with; the message names what was looked for."""


@dataclass(frozen=True)
class Credentials:
    """Of the function's role, for as long as they last."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None
    expires: datetime | None = None


class SigV4Auth(httpx.Auth):
    """Signs what a client sends with the credentials of the environment.

    Those are in variables of their own, or, after a SnapStart restore, are asked for at the address that
    AWS_CONTAINER_CREDENTIALS_FULL_URI names, and kept while they last.

    Args:
        region: where the function is.
        environ: read at every request, for a restored environment is not the one that was there at the start.
        now: the time in UTC.
        service: what is asked, by its name in signatures.
    """

    requires_request_body = True
    requires_response_body = True

    def __init__(
        self, region: str, environ: Mapping[str, str], now: Callable[[], datetime], service: str = "lambda"
    ) -> None:
        self._region = region
        self._environ = environ
        self._now = now
        self._service = service
        self._kept: Credentials | None = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sign, asking for credentials first where there are none."""
        credentials = _of_variables(self._environ) or self._still_good()
        if credentials is None:
            # With the request's own timeouts: httpx would wait for ever.
            answer = yield _question(self._environ, request.extensions)
            credentials = self._kept = _read_credentials(answer)
        sign(request, credentials, self._region, self._service, self._now())
        yield request

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Do the same, reading only the answer with the credentials: what the function answers is a stream."""
        await request.aread()
        flow = self.auth_flow(request)
        to_send = next(flow)
        if to_send is not request:
            answer = yield to_send
            await answer.aread()
            to_send = flow.send(answer)
        yield to_send

    def _still_good(self) -> Credentials | None:
        kept = self._kept
        if kept is None or (kept.expires is not None and kept.expires - _RENEW_BEFORE <= self._now()):
            return None
        return kept


def sign(request: httpx.Request, credentials: Credentials, region: str, service: str, now: datetime) -> None:
    """Add to ``request`` the time, the session's token and the signature.

    Signed are the method, the address, the body and, of the headers, the host, the content's type and AWS's own:
    others may be changed on the way, the trace's by Lambda itself.
    """
    time = now.strftime("%Y%m%dT%H%M%SZ")
    request.headers["x-amz-date"] = time
    if credentials.session_token:
        request.headers["x-amz-security-token"] = credentials.session_token
    signed = {
        name: re.sub(" +", " ", value.strip())
        for name, value in sorted(request.headers.items())
        if name in {"content-type", "host"} or name.startswith("x-amz-")
    }
    names = ";".join(signed)
    canonical = "\n".join(
        [
            request.method,
            _canonical_path(request.url),
            _canonical_query(request.url),
            *(f"{name}:{value}" for name, value in signed.items()),
            "",
            names,
            hashlib.sha256(request.content).hexdigest(),
        ]
    )
    scope = f"{time[:8]}/{region}/{service}/aws4_request"
    to_sign = "\n".join([ALGORITHM, time, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{credentials.secret_access_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    request.headers["authorization"] = (
        f"{ALGORITHM} Credential={credentials.access_key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    )


def _canonical_path(url: httpx.URL) -> str:
    # Encoded once more than on the wire, for every service but S3.
    return quote(url.raw_path.partition(b"?")[0], safe="/-_.~") or "/"


def _canonical_query(url: httpx.URL) -> str:
    # As it goes over the wire, in order.
    pairs = (pair.partition("=") for pair in url.query.decode("ascii").split("&") if pair)
    return "&".join(f"{name}={value}" for name, value in sorted((name, value) for name, _, value in pairs))


def _of_variables(environ: Mapping[str, str]) -> Credentials | None:
    key, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    return Credentials(key, secret, environ.get("AWS_SESSION_TOKEN") or None) if key and secret else None


def _question(environ: Mapping[str, str], extensions: Mapping[str, Any]) -> httpx.Request:
    address = environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    if not address:
        raise NoCredentialsError(
            "no credentials to sign with: neither AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY nor "
            "AWS_CONTAINER_CREDENTIALS_FULL_URI is set"
        )
    token = environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
    return httpx.Request("GET", address, headers={"authorization": token}, extensions=dict(extensions))


def _read_credentials(answer: httpx.Response) -> Credentials:
    # Nothing of the answer itself is quoted: it holds a secret, and this ends in a log.
    try:
        found = json.loads(answer.content)
        return Credentials(
            found["AccessKeyId"],
            found["SecretAccessKey"],
            found.get("Token"),
            datetime.fromisoformat(found["Expiration"]).astimezone(UTC) if found.get("Expiration") else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NoCredentialsError(f"{answer.url} answered {answer.status_code} and no credentials") from None
