"""ASGI's lifespan: the app's start-up and shut-down, once for each process."""

import asyncio
from typing import Any

from functions.runtime.errors import RuntimeFault


class Lifespan:
    """Starts an app, keeps what it put into its state, and shuts it down; an app without a lifespan is left alone."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.state: dict[str, Any] = {}
        self._to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._running: asyncio.Task[None] | None = None

    async def start_up(self) -> None:
        """Return when the app has started up.

        Raises:
            RuntimeFault: the app says that it cannot.
        """
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        self._running = asyncio.create_task(self._app(scope, self._to_app.get, self._from_app.put))
        answer = await self._ask("lifespan.startup")
        if answer is None:
            # It raised, or returned without a word: it knows no lifespan, says the specification.
            self._running = None
        elif answer["type"] == "lifespan.startup.failed":
            raise RuntimeFault("Runtime.StartUpFailed", f"The app could not start up: {answer.get('message', '')}")

    async def shut_down(self) -> None:
        """Return when the app has shut down."""
        if self._running is not None and not self._running.done():
            await self._ask("lifespan.shutdown")
            await asyncio.wait({self._running})

    async def _ask(self, message: str) -> dict[str, Any] | None:
        assert self._running is not None
        await self._to_app.put({"type": message})
        answering = asyncio.create_task(self._from_app.get())
        await asyncio.wait({answering, self._running}, return_when=asyncio.FIRST_COMPLETED)
        if self._running.done() and self._from_app.empty() and not answering.done():
            answering.cancel()
            self._running.exception()  # seen
            return None
        return await answering
