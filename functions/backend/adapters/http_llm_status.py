"""The instances' own GET /status, each asked at its address."""

import asyncio
import logging
from urllib.parse import urlsplit

import httpx

from functions.backend.adapters.addresses import Resolve, system_places
from functions.backend.adapters.llm_wire import read_status
from functions.backend.domain.errors import LLMMisbehaved
from functions.backend.domain.llm_status import InstanceStatus
from functions.backend.telemetry.current import trace_headers

_log = logging.getLogger(__name__)

# Who looks on is not made to wait for an instance that hangs: the others are told of.
_ANSWER_WITHIN_S = 1.0
_MAX_ADDRESSES = 64


class HTTPLLMStatus:
    """Asks every instance behind the host of `stream_url`, which ends with /generate/stream."""

    def __init__(self, stream_url: str, resolve: Resolve = system_places) -> None:
        self._parts = urlsplit(stream_url.removesuffix("/generate/stream") + "/status")
        self._resolve = resolve
        self._client: httpx.AsyncClient | None = None

    async def statuses(self, request_id: str) -> tuple[InstanceStatus, ...]:
        """Ask all at once; see the port."""
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                urls = await self._urls()
        except (OSError, TimeoutError) as error:
            _log.debug("request %s: %s: %s", request_id, self._parts.hostname, error)
            return ()
        answers = await asyncio.gather(*(self._status(url, request_id) for url in urls))
        return tuple(answer for answer in answers if answer is not None)

    async def aclose(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _urls(self) -> list[str]:
        """Give an address for each instance: those that the host's name stands for."""
        if self._parts.scheme == "https":
            # What is there is named by its certificate, and stands for its instances itself.
            return [self._parts.geturl()]
        # All of them, of both families: an instance that answers twice is known by its name.
        places = await self._resolve(self._parts.hostname or "", self._parts.port or 80)
        return [self._url_at(host, port) for _, host, port in places[:_MAX_ADDRESSES]]

    def _url_at(self, host: str, port: int) -> str:
        netloc = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return f"{self._parts.scheme}://{netloc}{self._parts.path}"

    async def _status(self, url: str, request_id: str) -> InstanceStatus | None:
        headers = {"host": self._parts.netloc, "accept": "application/json", "x-request-id": request_id}
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                answer = await self._live_client().get(url, headers=headers | trace_headers())
            if answer.status_code != httpx.codes.OK:
                _log.debug("request %s: %s answered %d", request_id, url, answer.status_code)
                return None
            return read_status(answer.content)
        except (httpx.HTTPError, TimeoutError) as error:
            _log.debug("request %s: %s: %r", request_id, url, error)
        except LLMMisbehaved as error:
            _log.warning("request %s: %s: %s", request_id, url, error)
        return None

    def _live_client(self) -> httpx.AsyncClient:
        # Made when somebody looks on: making one takes longer than a request does.
        if self._client is None:
            # uvicorn closes a connection that was idle for 5 s.
            self._client = httpx.AsyncClient(trust_env=False, limits=httpx.Limits(keepalive_expiry=4.0))
        return self._client
