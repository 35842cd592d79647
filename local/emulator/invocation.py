"""One invocation: what was asked, and the answer as it comes."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

INTEGRATION_RESPONSE = "application/vnd.awslambda.http-integration-response"


def _trace_id() -> str:
    root, parent = uuid.uuid4().hex[:24], uuid.uuid4().hex[:16]
    return f"Root=1-{int(time.time()):08x}-{root};Parent={parent};Sampled=1"


@dataclass(frozen=True)
class Failure:
    """How an invocation failed.

    Args:
        error_type: such as ``Runtime.ExitError``.
        body: the error as JSON, as the runtime or Lambda itself wrote it.
    """

    error_type: str
    body: bytes

    @classmethod
    def of_lambda(cls, error_type: str, message: str) -> "Failure":
        return cls(error_type, json.dumps({"errorType": error_type, "errorMessage": message}).encode())


@dataclass(frozen=True)
class Head:
    """What is known when an answer begins: its content type, and whether it comes in chunks."""

    content_type: str
    streaming: bool


@dataclass(eq=False)
class Invocation:
    """One invocation, from the event to the answer's end.

    Args:
        event: as the function is given it.
        timeout_s: what the function may take once it has it.
        request_id: the invocation's id.
        trace_id: X-Ray's header.
        qualifier: the version or alias that was asked for.
        deadline_ms: set when the function is given the event.
        head: set when the answer begins; None for a failure before it.
        arrivals: the answer's payload, each chunk with the time at which it came.
        failure: set at the end, where it is one.
        wire: the request that brought the answer, byte for byte.
    """

    event: bytes
    timeout_s: float
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    trace_id: str = field(default_factory=_trace_id)
    qualifier: str = "$LATEST"
    deadline_ms: int = 0
    head: Head | None = None
    arrivals: list[tuple[float, bytes]] = field(default_factory=list)
    failure: Failure | None = None
    wire: bytes = b""
    given: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def payload(self) -> bytes:
        """All of the answer that has come."""
        return b"".join(data for _, data in self.arrivals)

    def begin(self, head: Head) -> None:
        self.head = head
        self.begun.set()

    def add(self, data: bytes) -> None:
        self.arrivals.append((time.monotonic(), data))
        self._news.set()

    def end(self, failure: Failure | None = None) -> None:
        """End the answer; what comes after an end does not count."""
        if self.ended.is_set():
            return
        self.failure = failure
        for event in (self.ended, self.given, self.begun, self._news):
            event.set()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give the answer's payload as it comes, to its end."""
        position = 0
        while True:
            while position < len(self.arrivals):
                yield self.arrivals[position][1]
                position += 1
            if self.ended.is_set():
                return
            self._news.clear()
            await self._news.wait()
