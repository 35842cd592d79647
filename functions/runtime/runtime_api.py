"""Lambda's Runtime API: where the work comes from, and where answers go.

Each call has a connection of its own. The Runtime API is in the same machine, and so a connection that has gone stale
over a long answer, or over a snapshot, is a case that need not exist.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from functions.runtime.context import LambdaContext
from functions.runtime.errors import error_body, error_type
from functions.runtime.response_stream import ResponseStream

_HEAD_END = b"\r\n\r\n"
_PREFIX = "/2018-06-01/runtime"
_ACCEPTED = 202
# What Lambda handed over before it heard of the end is here within that.
_ON_ITS_WAY_S = 0.1

_log = logging.getLogger(__name__)


class RuntimeApiError(RuntimeError):
    """The Runtime API answered something that leaves no way on; Lambda starts a new process."""


class _StoppedError(Exception):
    """There is no work any more, and none is wanted."""


@dataclass(frozen=True)
class Answer:
    """A response of the Runtime API; the headers' names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Invocation:
    """One piece of work.

    Args:
        event: as JSON.
        context: id, deadline and the like.
        trace_id: X-Ray's header, or empty.
        invocation_id: to be sent back with the answer, where Lambda gave one.
    """

    event: bytes
    context: LambdaContext
    trace_id: str
    invocation_id: str

    @property
    def path(self) -> str:
        """Where answers to it go."""
        return f"{_PREFIX}/invocation/{self.context.aws_request_id}"

    @property
    def headers(self) -> dict[str, str]:
        """What every answer to it carries."""
        return {"Lambda-Runtime-Invocation-Id": self.invocation_id} if self.invocation_id else {}


class RuntimeApi:
    """A client of the Runtime API at ``address``, host and port."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._stopping = False
        self._waiting: set[asyncio.Timeout] = set()

    def stop(self) -> None:
        """Wait for no more work; what Lambda has handed over already is still given."""
        self._stopping = True
        for waiting in self._waiting:
            waiting.reschedule(asyncio.get_running_loop().time() + _ON_ITS_WAY_S)

    async def next(self) -> Invocation | None:
        """Wait for work, however long it takes; None where there is no more, after `stop`."""
        if self._stopping:
            return None
        try:
            answer = await self._call("GET", f"{_PREFIX}/invocation/next", read=self._read_next)
        except _StoppedError:
            return None
        if answer.status != 200:
            raise RuntimeApiError(f"invocation/next: {answer.status} {answer.body.decode(errors='replace')}")
        headers = answer.headers
        context = LambdaContext(
            headers["lambda-runtime-aws-request-id"],
            headers.get("lambda-runtime-invoked-function-arn", ""),
            int(headers["lambda-runtime-deadline-ms"]),
            json.loads(headers.get("lambda-runtime-client-context") or "null"),
            json.loads(headers.get("lambda-runtime-cognito-identity") or "null"),
        )
        trace_id, invocation_id = (headers.get(f"lambda-runtime-{name}-id", "") for name in ("trace", "invocation"))
        return Invocation(answer.body, context, trace_id, invocation_id)

    async def open_stream(self, invocation: Invocation) -> ResponseStream:
        """Begin an answer that comes in chunks."""
        reader, writer = await self._connect()
        return ResponseStream(reader, writer, f"{invocation.path}/response", self._address, invocation.headers)

    async def respond(self, invocation: Invocation, body: bytes) -> None:
        """Send an answer in one piece."""
        await self._post(f"{invocation.path}/response", body, invocation.headers)

    async def fail(self, invocation: Invocation, error: BaseException) -> None:
        """Say that an invocation failed, which is possible only before its answer has begun."""
        headers = {**invocation.headers, "Lambda-Runtime-Function-Error-Type": error_type(error)}
        await self._post(f"{invocation.path}/error", error_body(error), headers)

    async def fail_init(self, error: BaseException) -> None:
        """Say that this process cannot do any work."""
        headers = {"Lambda-Runtime-Function-Error-Type": error_type(error)}
        await self._post(f"{_PREFIX}/init/error", error_body(error), headers)

    async def restore_next(self) -> None:
        """Say that the snapshot can be made; returns in each process that is made from it."""
        answer = await self._call("GET", f"{_PREFIX}/restore/next")
        if answer.status != 200:
            raise RuntimeApiError(f"restore/next: {answer.status} {answer.body.decode(errors='replace')}")

    async def fail_restore(self, error: BaseException) -> None:
        """Say that what was made from the snapshot cannot do any work."""
        headers = {"Lambda-Runtime-Function-Error-Type": error_type(error)}
        await self._post(f"{_PREFIX}/restore/error", error_body(error), headers)

    async def _read_next(self, reader: asyncio.StreamReader) -> Answer:
        waiting = asyncio.timeout(_ON_ITS_WAY_S if self._stopping else None)
        try:
            async with waiting:
                self._waiting.add(waiting)
                head = await reader.readuntil(_HEAD_END)
        except TimeoutError:
            raise _StoppedError from None
        finally:
            self._waiting.discard(waiting)
        # Once there is a head, there is an invocation, which nothing may drop.
        return await _read_rest(head, reader)

    async def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        answer = await self._call("POST", path, body, {"Content-Type": "application/json", **headers})
        if answer.status != _ACCEPTED:
            # Too late, or too large; Lambda has told the client already.
            _log.error("%s: %s %s", path, answer.status, answer.body.decode(errors="replace"))

    async def _call(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        read: Callable[[asyncio.StreamReader], Awaitable[Answer]] | None = None,
    ) -> Answer:
        reader, writer = await self._connect()
        try:
            fields = {"Host": self._address, "Connection": "close", **(headers or {})}
            if method == "POST":
                fields["Content-Length"] = str(len(body))
            lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
            writer.write("\r\n".join(lines).encode("latin-1") + body)
            await writer.drain()
            return await (read or read_answer)(reader)
        except BaseException:
            # Closing would wait for what cannot be sent.
            writer.transport.abort()
            raise
        finally:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, _, port = self._address.rpartition(":")
        # Headers hold the client context, which may be a few kilobytes long.
        return await asyncio.open_connection(host, int(port), limit=1 << 20)


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Give one HTTP response, whole."""
    return await _read_rest(await reader.readuntil(_HEAD_END), reader)


async def _read_rest(head: bytes, reader: asyncio.StreamReader) -> Answer:
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Answer(int(first.split(" ")[1]), headers, body)
