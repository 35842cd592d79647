"""A generation's events as they are, noted in the log and the trace while they pass."""

import time
from collections.abc import AsyncIterator
from typing import Self

from functions.llm.inference.engine import GivenUp
from functions.llm.inference.generation import Done, Event
from functions.llm.inference.generation_stream import GenerationStream
from functions.llm.telemetry.current import note, note_moment


class TracedStream(AsyncIterator[list[Event]]):
    """Stands for ``stream``, and is read within the request that it belongs to."""

    def __init__(self, stream: GenerationStream) -> None:
        self._stream = stream
        self._began = time.perf_counter()
        self._has_begun = self._is_done = False
        note(model=stream.generation.model.name, prompt_tokens=len(stream.generation.prompt))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Event]:
        """Return the next events."""
        try:
            events = await anext(self._stream)
        except StopAsyncIteration:
            if not self._is_done:
                note(finish_reason="cancelled")
            raise
        if not self._has_begun:
            self._has_begun = True
            note(first_token_ms=round(1000 * (time.perf_counter() - self._began), 1))
            now_ns = time.time_ns()
            if (started_at := self._stream.started_at) is not None:
                note_moment("prefill", now_ns - int(1e9 * (time.monotonic() - started_at)))
            note_moment("first token", now_ns)
        if isinstance(done := events[-1], Done):
            self._is_done = True
            note_moment("last token", time.time_ns())
            note(tokens=done.completion_tokens, finish_reason=done.finish_reason)
        return events

    def cancel(self, reason: GivenUp = "cancelled") -> None:
        """End the generation; whoever awaits its events sees the end. The first reason counts."""
        self._stream.cancel(reason)
