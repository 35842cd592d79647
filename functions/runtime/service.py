"""The life of a process: start up, pass the snapshot, answer what comes, shut down."""

import asyncio
import json
import logging
import os
from typing import Any

from functions.runtime.events import is_ping, read_request
from functions.runtime.http_cycle import HttpCycle
from functions.runtime.lifespan import Lifespan
from functions.runtime.reply import BufferedReply, Reply, StreamedReply
from functions.runtime.runtime_api import Invocation, RuntimeApi
from functions.runtime.settings import Settings
from functions.runtime.snap_start import after_restore, before_snapshot

_TRACE_ID = "_X_AMZN_TRACE_ID"
_WARM = b'{"status":"warm"}'

_log = logging.getLogger(__name__)


class Service:
    """Answers invocations with an ASGI app, as many at once as the settings say."""

    def __init__(self, app: Any, api: RuntimeApi, settings: Settings) -> None:
        self._app = app
        self._api = api
        self._settings = settings
        self._lifespan = Lifespan(app)

    async def run(self) -> None:
        """Return after `stop`, when what was under way has been answered and the app has shut down.

        So it does, raising what was wrong, when the Runtime API gives no more work.
        """
        try:
            await self._lifespan.start_up()
            if self._settings.snap_start:
                await before_snapshot()
        except Exception as error:
            await self._api.fail_init(error)
            raise
        if self._settings.snap_start:
            await self._api.restore_next()
            try:
                await after_restore()
            except Exception as error:
                await self._api.fail_restore(error)
                raise
        try:
            pollers = [self._poll() for _ in range(self._settings.max_concurrency)]
            for failed in await asyncio.gather(*pollers, return_exceptions=True):
                if failed is not None:
                    raise failed
        finally:
            await self._lifespan.shut_down()

    def stop(self) -> None:
        """Ask for no more work."""
        self._api.stop()

    async def _poll(self) -> None:
        try:
            while invocation := await self._api.next():
                await self._answer(invocation)
        except Exception:
            # The others end what they are at; then the process ends, and Lambda starts a new one.
            self.stop()
            raise

    async def _answer(self, invocation: Invocation) -> None:
        # Where AWS's SDKs look for it; of several at once it would be anybody's.
        os.environ.pop(_TRACE_ID, None)
        if self._settings.max_concurrency == 1 and invocation.trace_id:
            os.environ[_TRACE_ID] = invocation.trace_id
        context = invocation.context
        try:
            event = json.loads(invocation.event)
            if is_ping(event):
                await self._api.respond(invocation, _WARM)
                return
            request = read_request(event, context, invocation.trace_id, self._settings)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with an event is told to who sent it
            await self._api.fail(invocation, error)
            return
        request.scope["state"] = self._lifespan.state.copy()
        reply: Reply = StreamedReply(self._api, invocation)
        if not request.streams:
            reply = BufferedReply(self._api, invocation, request.mangum)
        try:
            await HttpCycle(self._app, request, reply).run(context.get_remaining_time_in_millis() / 1000)
        except Exception:  # noqa: BLE001 - it harms no other invocation
            # Most likely Lambda has given the invocation up; others may be under way.
            _log.exception("The answer to %s could not be sent", context.aws_request_id)
