"""The model service over HTTP: one pooled client, every failure a domain error."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit

import httpx

from functions.backend.adapters.addresses import Address, Addresses, Resolve, system_places
from functions.backend.adapters.event_stream import EventStreamError, EventStreamParser
from functions.backend.adapters.llm_wire import (
    ErrorDetail,
    read_error,
    read_event,
    read_models,
    write_check,
    write_request,
)
from functions.backend.adapters.sigv4 import NoCredentialsError
from functions.backend.domain.conversation import Conversation
from functions.backend.domain.errors import (
    DeadlineExceeded,
    LLMBusy,
    LLMDisconnected,
    LLMError,
    LLMMisbehaved,
    LLMRefused,
    LLMTimeout,
    LLMUnavailable,
)
from functions.backend.domain.events import Done, Event, StreamError
from functions.backend.domain.generation import Generation
from functions.backend.domain.model_card import ModelCard
from functions.backend.domain.prompt import Prompt
from functions.backend.telemetry.current import note, trace_headers

_log = logging.getLogger(__name__)

_IDLE_CONNECTIONS = 32
# uvicorn closes a connection that was idle for 5 s; one that is reused in that moment would break.
_IDLE_CONNECTION_S = 4.0
# After the last event only the end of the chunked encoding is due.
_END_OF_ANSWER_S = 0.2
# An error answer is a few hundred bytes, a list of models a few kilobytes; more is not read into memory.
_MAX_ANSWER_BYTES = 1 << 20
# These say that we asked wrongly (the address, the method, the headers), which is not the client's to mend.
_OUR_OWN_FAULTS = frozenset(
    {
        "invalid_json",
        "method_not_allowed",
        "misdirected_request",
        "not_acceptable",
        "not_found",
        "request_timeout",
        "unsupported_media_type",
    }
)
# Every instance has its list of models at hand: who is silent for so long is no reason to let the others' wait.
_LIST_WITHIN_S = 2.0
# No time at all is no number that the service takes; so much is over before it has read it.
_SHORTEST_S = 0.001


class HTTPLLMGateway:
    """Speaks to the llm function, whose stream is at `stream_url`; its other doors are siblings of that one.

    Where the name in a plain http address leads to several instances, all of them are used, the least busy first.

    Args:
        stream_url: ends with /generate/stream.
        timeout_s: the longest silence that is waited for while an answer is due.
        connect_timeout_s: the longest a connection may take.
        auth: signs the requests, where the function asks for that. Such requests come from a Lambda and go to one: a
            process that was frozen in between finds its connections dead, so each has its own.
        resolve: says where the name in a plain http address leads.
    """

    def __init__(
        self,
        stream_url: str,
        timeout_s: float,
        connect_timeout_s: float,
        auth: httpx.Auth | None = None,
        resolve: Resolve = system_places,
    ) -> None:
        self._stream_url = stream_url
        self._root = stream_url.removesuffix("/generate/stream")
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._auth = auth
        place = urlsplit(stream_url)
        self._addresses: Addresses | None = None
        if place.scheme == "http" and place.hostname and not auth:
            self._addresses = Addresses(place.hostname, place.port or 80, time.monotonic, resolve)
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def stream(
        self, generation: Generation, request_id: str, client: str = "", timeout_s: float | None = None
    ) -> AsyncGenerator[Event]:
        """Tell the events as they come; see the port."""
        parser = EventStreamParser()
        headers = {"accept": "text/event-stream", "content-type": "application/json"}
        if client:
            headers["x-huginn-client"] = client
        if timeout_s is not None:
            headers["x-huginn-timeout-s"] = f"{max(timeout_s, _SHORTEST_S):.3f}"
        body = write_request(generation)
        async with self._answer("POST", self._stream_url, request_id, headers, body) as answer:
            _expect_content_type(answer, "text/event-stream")
            chunks = answer.extensions.get("pieces") or answer.aiter_raw()
            async for chunk in chunks:
                for event in _events(parser, chunk):
                    if isinstance(event, Done | StreamError):
                        if isinstance(event, Done):
                            _note_end(event)
                        await _let_finish(chunks)
                        yield event
                        return
                    yield event
            raise LLMDisconnected

    async def check(self, prompts: Sequence[Prompt | Conversation], model: str | None, request_id: str) -> None:
        """Have prompts checked; see the port."""
        # Beside the event loop: they may be a megabyte.
        body = await asyncio.to_thread(write_check, prompts, model)
        await self.fetch("POST", "/check", request_id, body)

    async def models(self, request_id: str) -> tuple[ModelCard, ...]:
        """List the models; see the port. Of several instances, those that any of them has that answers."""
        addresses = await self._working_addresses()
        if len(addresses) < 2:
            return await self._models(request_id, None)
        lists = await asyncio.gather(
            *(self._models(request_id, address) for address in addresses), return_exceptions=True
        )
        known = [cards for cards in lists if not isinstance(cards, BaseException)]
        for failure in lists:
            if isinstance(failure, BaseException) and not (known and isinstance(failure, LLMError)):
                raise failure
        # Which one serves by default is said once, by the first.
        return tuple({card.name: card for cards in reversed(known) for card in reversed(cards)}.values())[::-1]

    async def fetch(
        self, method: str, path: str, request_id: str, body: bytes | None = None, max_bytes: int = _MAX_ANSWER_BYTES
    ) -> bytes:
        """Give what another door of the service answers, as JSON.

        Raises:
            LLMError: it did not answer well.
        """
        headers = {"accept": "application/json"} | ({} if body is None else {"content-type": "application/json"})
        async with self._answer(method, f"{self._root}{path}", request_id, headers, body) as answer:
            return await _read(answer, max_bytes)

    async def ready(self, request_id: str) -> bool:
        """Ask the service's own readiness; see the port."""
        try:
            # A probe that is late is a no: who asks has a short deadline of its own.
            async with (
                asyncio.timeout(self._connect_timeout_s),
                self._answer("GET", f"{self._root}/readyz", request_id, {"accept": "application/json"}) as answer,
            ):
                await _read(answer)
                return True
        except (LLMError, TimeoutError):
            return False

    async def aclose(self) -> None:
        """Close the connections; a later call opens new ones."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()

    async def _models(self, request_id: str, address: Address | None) -> tuple[ModelCard, ...]:
        headers = {"accept": "application/json"}
        silence_s = min(self._timeout_s, _LIST_WITHIN_S) if address else None
        asked = "GET", f"{self._root}/models", request_id, headers
        async with self._answer(*asked, address=address, silence_s=silence_s) as answer:
            return read_models(await _read(answer))

    async def _working_addresses(self) -> Sequence[Address]:
        if self._addresses is None:
            return ()
        try:
            return await self._addresses.working()
        except OSError:
            return ()  # who asks now is told why

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        url: str,
        request_id: str,
        headers: dict[str, str],
        body: bytes | None = None,
        address: Address | None = None,
        silence_s: float | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """Enter when a good answer's head has come, read it inside; leaving early closes the connection at once."""
        headers = {**headers, "x-request-id": request_id, **trace_headers()}
        try:
            with _transport_failures():
                extensions = {"address": address} if address else {}
                timeout = httpx.Timeout(silence_s or self._timeout_s, connect=silence_s or self._connect_timeout_s)
                async with self._live_client().stream(
                    method, url, headers=headers, content=body, extensions=extensions, timeout=timeout
                ) as answer:
                    if answer.status_code != httpx.codes.OK:
                        raise _refusal(answer, await _read(answer))
                    yield answer
        except LLMRefused:
            raise
        except LLMError as error:
            # The address and the cause are for the log: the client is told what to do, not where our services are.
            _log.warning("request %s: %s %s: %s", request_id, method, url, error.__cause__ or error)
            raise

    def _live_client(self) -> httpx.AsyncClient:
        """Give the client of the running loop.

        It is made on first use, for on Lambda nothing runs at start-up, and made anew when the loop is another one, for
        a connection cannot leave the loop it was opened in.
        """
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._loop = loop
            self._client = httpx.AsyncClient(
                auth=self._auth,
                trust_env=False,
                transport=self._transport(),
                # The model service's own queue is the limit; a second one here would only hide it.
                limits=httpx.Limits(
                    max_connections=None,
                    max_keepalive_connections=0 if self._auth else _IDLE_CONNECTIONS,
                    keepalive_expiry=_IDLE_CONNECTION_S,
                ),
                headers={"accept-encoding": "identity"},
            )
        return self._client

    def _transport(self) -> httpx.AsyncBaseTransport | None:
        if self._addresses is None:
            # httpx's own: what is reached through TLS, or signs, is far away and balances by itself.
            return None
        # Not on Lambda, where no server's parser is packed.
        from functions.backend.adapters.http_transport import HTTPTransport

        return HTTPTransport(self._addresses)


def _note_end(event: Done) -> None:
    usage = event.usage
    note(model=event.model, prompt_tokens=usage.prompt_tokens, tokens=usage.completion_tokens)
    note(finish_reason=event.finish_reason)


def _events(parser: EventStreamParser, chunk: bytes) -> Iterator[Event]:
    try:
        for frame in parser.push(chunk):
            event = read_event(frame)
            if event is not None:
                yield event
    except EventStreamError as error:
        raise LLMMisbehaved(f"The model service sent a stream we cannot read: {error}.") from error


@contextmanager
def _transport_failures() -> Iterator[None]:
    """Turn what httpx raises into what the domain calls it."""
    try:
        yield
    except NoCredentialsError as error:
        raise LLMUnavailable("Requests to the model service cannot be signed. See this service's role.") from error
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise LLMUnavailable("The model service does not answer. Start it, or set LLM_URL to its address.") from error
    except httpx.TimeoutException as error:
        raise LLMTimeout("The model service was silent for too long. Try again, or raise LLM_TIMEOUT_S.") from error
    except httpx.TransportError as error:
        raise LLMDisconnected from error


async def _let_finish(chunks: AsyncIterator[bytes]) -> None:
    """Read the few bytes that end an answer, so that its connection can be used again; a late end is not waited for."""
    try:
        async with asyncio.timeout(_END_OF_ANSWER_S):
            while await anext(chunks, None) is not None:
                pass
    except (TimeoutError, httpx.TransportError):
        pass


async def _read(answer: httpx.Response, max_bytes: int = _MAX_ANSWER_BYTES) -> bytes:
    body = bytearray()
    async for chunk in answer.aiter_raw():
        body += chunk
        if len(body) > max_bytes:
            raise LLMMisbehaved(f"The model service sent an answer of more than {max_bytes} bytes.")
    return bytes(body)


def _refusal(answer: httpx.Response, body: bytes) -> LLMError:
    """Give the error that an answer other than 200 stands for."""
    detail = read_error(body)
    status = answer.status_code
    retry_after = answer.headers.get("retry-after")
    if status == httpx.codes.SERVICE_UNAVAILABLE and retry_after is not None:
        detail = detail or ErrorDetail(
            code="not_ready", message=f"The model service is busy. Retry in {retry_after} s."
        )
        return LLMBusy(detail.code, detail.message, retry_after=retry_after)
    if httpx.codes.is_client_error(status) and detail and detail.code not in _OUR_OWN_FAULTS:
        return LLMRefused(status, detail.code, detail.message, field=detail.field)
    if status == httpx.codes.GATEWAY_TIMEOUT and detail:
        return DeadlineExceeded(detail.message)
    if status == httpx.codes.FORBIDDEN and not detail:
        return LLMMisbehaved("The model service does not let this one in. See LLM_AUTH, and the role that signs.")
    said = f"{detail.code}: {detail.message}" if detail else "no error we can read"
    return LLMMisbehaved(f"The model service answered {status} ({said}). See its log, and check LLM_URL.")


def _expect_content_type(answer: httpx.Response, expected: str) -> None:
    found = answer.headers.get("content-type", "")
    if found.partition(";")[0].strip().lower() != expected:
        raise LLMMisbehaved(f"The model service sent {found or 'no content type'}, not {expected}. Check LLM_URL.")
