"""Sends chunks as data-only server-sent events, and says in time that there are none yet."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Protocol

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from functions.backend.application.generate_choices import ChoiceEvents
from functions.backend.controllers.disconnect import unless_client_leaves
from functions.backend.controllers.errors import Refusal, Shape, refusal_of, unexpected_refusal
from functions.backend.controllers.openai.errors import openai_shape
from functions.backend.controllers.patience import SlowReader
from functions.backend.controllers.request_id import request_id_of
from functions.backend.controllers.traffic import note_error
from functions.backend.domain.errors import BackendError
from functions.backend.domain.events import Event, StreamError

# Shorter than the half minute after which proxies and load balancers give up on a silent connection.
PING_S = 10.0

_PING = b": ping\n\n"
_DONE = b"data: [DONE]\n\n"

_log = logging.getLogger(__name__)


class ChunkWriter(Protocol):
    """Words the events of one kind of answer."""

    def write(self, index: int, event: Event) -> Iterable[str]:
        """Give the chunks that tell an event of a text, each JSON on one line; none where there is nothing to tell."""
        ...

    def end(self) -> Iterable[str]:
        """Give the chunks that come after the last text."""
        ...


class ChunkResponse(Response):
    """An answer that begins with the first event, or with a ping if there is none for a while.

    Args:
        events: entered and left here; what entering raises travels on where nothing has been sent, and is the last
            frame of the stream where something has.
        writer: words them.
        shape: words what is refused.
    """

    media_type = "text/event-stream"

    def __init__(
        self, events: AbstractAsyncContextManager[ChoiceEvents], writer: ChunkWriter, shape: Shape = openai_shape
    ) -> None:
        # x-accel-buffering is nginx's word for: do not keep it back.
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._writer = writer
        self._shape = shape

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything, or stop the texts when the client leaves.

        Raises:
            LLMError: nothing was generated and nothing sent.
        """
        with suppress(ClientDisconnect):
            await unless_client_leaves(receive, self._send(scope, send))

    async def _send(self, scope: Scope, send: Send) -> None:
        line = _Line(send, self)
        async with _pings(line, PING_S):
            try:
                await self._tell(line, scope)
            except SlowReader:
                raise  # told by who noticed
            except Exception as error:
                if not line.started:
                    raise
                await self._end_badly(line, scope, _refusal(error, request_id_of(scope)))
        await line.end()

    async def _tell(self, line: "_Line", scope: Scope) -> None:
        async with self._events as events:
            await line.start()
            async for index, event in events:
                if isinstance(event, StreamError):
                    # Its status is one of the past: the answer has begun. It says whose fault it was.
                    refusal = Refusal(event.status or 502, event.code, event.message, event.field, event.retryable)
                    await self._end_badly(line, scope, refusal)
                    return
                if frames := _frames(self._writer.write(index, event)):
                    await line.send(frames)
            await line.send(_frames(self._writer.end()) + _DONE)

    async def _end_badly(self, line: "_Line", scope: Scope, refusal: Refusal) -> None:
        note_error(scope, refusal.code)
        _, error = self._shape(refusal)
        await line.send(f"data: {json.dumps(error, ensure_ascii=False)}\n\n".encode())


def _frames(chunks: Iterable[str]) -> bytes:
    return "".join(f"data: {chunk}\n\n" for chunk in chunks).encode()


class _Line:
    """The connection to the client, and when it was last used."""

    def __init__(self, send: Send, response: Response) -> None:
        self._send = send
        self._response = response
        self.started = False
        self.sending = False
        """Whether the reader is waited for."""
        self.sent = 0
        """How many times something was sent."""

    async def start(self) -> None:
        if not self.started:
            self.started = True
            response = self._response
            await self._send(
                {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
            )

    async def send(self, body: bytes) -> None:
        await self.start()
        self.sending = True
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        self.sending = False
        self.sent += 1

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


@asynccontextmanager
async def _pings(line: _Line, ping_s: float) -> AsyncIterator[None]:
    """Within this context nothing is sent for no longer than about `ping_s`. Costs the texts themselves nothing."""

    async def ping() -> None:
        while True:
            before = line.sent
            await asyncio.sleep(ping_s)
            # Who is waited for has something to read, and for how long it takes nothing is somebody else's to count.
            if line.sent == before and not line.sending:
                await line.send(_PING)

    pinging = asyncio.create_task(ping())
    try:
        yield
    finally:
        pinging.cancel()
        await asyncio.gather(pinging, return_exceptions=True)


def _refusal(error: Exception, request_id: str) -> Refusal:
    if isinstance(error, BackendError):
        return refusal_of(error)
    _log.error("request %s failed", request_id, exc_info=error)
    return unexpected_refusal(request_id)
