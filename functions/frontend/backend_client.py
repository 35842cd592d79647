"""The backend as the frontend sees it: one pool of connections, and its failures in words."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from functions.frontend.errors import AnsweredError, ErrorBody
from functions.frontend.telemetry.current import trace_headers

# Of the time that the backend may be silent: how much a whole answer may take.
_SHARE_OF_TIME = 0.96


class BackendError(AnsweredError):
    """The backend gave no answer, or not a whole one."""


class BackendClient:
    """Requests to the backend at `url`."""

    def __init__(self, url: str, timeout_s: float, connect_timeout_s: float) -> None:
        """Open nothing yet: connections are made when they are needed."""
        self._url = url
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._http = httpx.AsyncClient(
            base_url=url,
            timeout=httpx.Timeout(timeout_s, connect=connect_timeout_s),
            # As many streams as there are readers; the model's own queue is the limit, and says so in words.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            # The backend is a neighbour: no proxy of the environment stands between.
            trust_env=False,
            transport=_transport(url),
        )

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> AsyncIterator[httpx.Response]:
        """The backend's response, its body unread; leaving the context closes it, and so ends its generation.

        Raises:
            BackendError: it cannot be reached, was silent too long, or broke off while its body was read.
        """
        try:
            # Encoded bytes could not be read before they are complete; the body is passed on as it comes.
            all_headers = {**headers, "accept-encoding": "identity", **trace_headers()}
            # As they came: a value may hold bytes that are not ASCII, which httpx would refuse to encode.
            raw_headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in all_headers.items()]
            async with self._http.stream(method, path, headers=raw_headers, content=body) as response:
                yield response
        except httpx.ConnectTimeout as error:
            raise self._unreachable("it did not accept a connection in time") from error
        except httpx.TimeoutException as error:
            message = (
                f"The backend at {self._url} sent nothing for {self._timeout_s:g} s. "
                "Try again with fewer tokens; if it stays so, look into the backend's log."
            )
            raise BackendError(504, ErrorBody("backend_timeout", message, retryable=True)) from error
        except httpx.TransportError as error:
            raise self._unreachable(str(error) or type(error).__name__) from error

    async def generate(self, request: Mapping[str, Any], request_id: str, visitor: Mapping[str, str]) -> httpx.Response:
        """The whole answer to one request, read to its end; `visitor` are the headers that say whose it is.

        Raises:
            BackendError: as in `stream`.
        """
        headers = {"accept": "application/json", "content-type": "application/json", "x-request-id": request_id}
        # A Function URL never tells that nobody waits any more, and the backend has better words for what took so long.
        headers |= {"x-huginn-timeout-s": f"{_SHARE_OF_TIME * self._timeout_s:.3f}", **visitor}
        body = httpx.Request("POST", self._url, json=dict(request)).content
        async with self.stream("POST", "/api/llm/generate", headers, body) as response:
            await response.aread()
            return response

    async def is_ready(self) -> bool:
        """Whether the backend says that it and the model behind it can answer now."""
        try:
            # A probe that is late is a no: who asks has a short deadline of its own.
            async with asyncio.timeout(self._connect_timeout_s), self.stream("GET", "/readyz", {}) as response:
                await response.aread()  # so that the connection can be used again
                return response.is_success
        except (BackendError, TimeoutError):
            return False

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    def _unreachable(self, reason: str) -> BackendError:
        message = (
            f"The backend at {self._url} cannot be reached ({reason}). "
            "Start it, or set BACKEND_URL to where it is; then try again."
        )
        return BackendError(502, ErrorBody("backend_unavailable", message, retryable=True))


def _transport(url: str) -> httpx.AsyncBaseTransport | None:
    if not url.startswith("http:"):
        # httpx's own: a backend that is reached through TLS is far away, and what a piece costs here does not show.
        return None
    # Not on Lambda, where the backend has an address of its own, and no server's parser is packed.
    from functions.frontend.http_transport import HTTPTransport

    return HTTPTransport()
