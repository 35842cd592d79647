"""A generation as a response that grows."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from functions.llm.controllers.accept import StreamForm
from functions.llm.controllers.errors import problem_of
from functions.llm.controllers.request_id import request_id_of
from functions.llm.controllers.traced_stream import TracedStream
from functions.llm.telemetry.cut_off import CutOffError


class StreamResponse(Response):
    """Sends events as they come, each batch at once."""

    def __init__(self, stream: TracedStream, form: StreamForm) -> None:
        # Neither caches nor proxies may keep a stream back (x-accel-buffering is nginx's word for it).
        headers = {"cache-control": "no-store", "vary": "accept", "x-accel-buffering": "no"}
        super().__init__(None, 200, headers, form.media_type)
        del self.headers["content-length"]
        self._stream = stream
        self._form = form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response; an error before its first event is raised, for it can still have a status of its own."""
        async with cancelled_on_disconnect(self._stream, receive):
            batch = await anext(self._stream, None)
            if batch is None:
                return  # the client has left
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                while batch is not None:
                    if encoded := self._form.encode(batch):
                        await send({"type": "http.response.body", "body": encoded, "more_body": True})
                    batch = await anext(self._stream, None)
            except Exception as error:
                problem = problem_of(error, request_id_of(scope))
                await send({"type": "http.response.body", "body": self._form.encode_error(problem), "more_body": True})
                if not self._form.error_ends_the_body:
                    raise CutOffError(problem.message) from error
            await send({"type": "http.response.body", "body": b"", "more_body": False})


@asynccontextmanager
async def cancelled_on_disconnect(stream: TracedStream, receive: Receive) -> AsyncIterator[None]:
    """Within the context, a client that leaves ends ``stream``; so does a server that stops; and so does leaving it."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        stream.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        stream.cancel("not_ready")
        raise
    finally:
        stream.cancel()
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
