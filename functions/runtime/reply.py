"""Where a response goes: out at once, or together at the end."""

import json
import logging
from typing import Protocol

from mangum.types import LambdaHandler

from functions.runtime.response_stream import Headers, ResponseStream
from functions.runtime.runtime_api import Invocation, RuntimeApi

_log = logging.getLogger(__name__)


class Reply(Protocol):
    """An answer to one invocation: started, written, and ended in one of two ways, one call after another."""

    @property
    def has_started(self) -> bool:
        """Whether there is a head already, so that none can follow."""

    async def start(self, status: int, headers: Headers) -> None:
        """Take the response's head."""

    async def write(self, data: bytes) -> None:
        """Take a piece of its body."""

    async def finish(self) -> None:
        """End it well."""

    async def fail(self, error: BaseException) -> None:
        """End it, started or not, with an error."""

    def abort(self) -> None:
        """Let go of it, ended or not, without waiting for anybody."""


class StreamedReply:
    """Sends everything at once."""

    def __init__(self, api: RuntimeApi, invocation: Invocation) -> None:
        self._api = api
        self._invocation = invocation
        self._stream: ResponseStream | None = None

    @property
    def has_started(self) -> bool:
        """See `Reply`."""
        return self._stream is not None

    async def start(self, status: int, headers: Headers) -> None:
        """See `Reply`."""
        self._stream = await self._api.open_stream(self._invocation)
        await self._stream.start(status, headers)

    async def write(self, data: bytes) -> None:
        """See `Reply`."""
        assert self._stream is not None
        await self._stream.write(data)

    async def finish(self) -> None:
        """See `Reply`."""
        assert self._stream is not None
        _expect_accepted(await self._stream.finish())

    async def fail(self, error: BaseException) -> None:
        """See `Reply`."""
        if self._stream is None:
            await self._api.fail(self._invocation, error)
        else:
            _expect_accepted(await self._stream.fail(error))

    def abort(self) -> None:
        """See `Reply`."""
        if self._stream is not None:
            self._stream.abort()


class BufferedReply:
    """Gathers everything, and sends it in the form that the event's source expects."""

    def __init__(self, api: RuntimeApi, invocation: Invocation, mangum: LambdaHandler) -> None:
        self._api = api
        self._invocation = invocation
        self._mangum = mangum
        self._status = 0
        self._headers: Headers = ()
        self._body = bytearray()

    @property
    def has_started(self) -> bool:
        """See `Reply`."""
        return self._status != 0

    async def start(self, status: int, headers: Headers) -> None:
        """See `Reply`."""
        self._status, self._headers = status, headers

    async def write(self, data: bytes) -> None:
        """See `Reply`."""
        self._body += data

    async def finish(self) -> None:
        """See `Reply`."""
        # Mangum takes headers for UTF-8, which those of HTTP are not.
        headers = [[name, value.decode("latin-1").encode()] for name, value in self._headers]
        answer = self._mangum({"status": self._status, "headers": headers, "body": bytes(self._body)})
        await self._api.respond(self._invocation, json.dumps(answer).encode())

    async def fail(self, error: BaseException) -> None:
        """See `Reply`."""
        await self._api.fail(self._invocation, error)

    def abort(self) -> None:
        """See `Reply`: each of its calls to the Runtime API ends with who made it."""


def _expect_accepted(status_line: bytes) -> None:
    if b" 202 " not in status_line + b" ":
        _log.error("the Runtime API did not take a streamed answer: %s", status_line.decode("latin-1"))
