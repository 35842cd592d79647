"""One request to an app, without a server between: its reader may stall, and the server may stop."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from functions.backend.telemetry.cut_off import CutOffError as BackendCutOff
from functions.frontend.telemetry.cut_off import CutOffError as FrontendCutOff
from functions.llm.telemetry.cut_off import CutOffError as LlmCutOff

PATIENCE_S = 60.0

Trouble = Literal["stalls", "stops"]
"""What happens when the first piece has been sent: the reader takes nothing for a while, or the server stops."""


@dataclass
class Answer:
    """What a reader got.

    Args:
        body: all of it.
        cut_off: whether it was left without its end, on purpose.
    """

    status: int = 0
    body: bytes = b""
    ended: bool = False
    cut_off: bool = False

    @property
    def code(self) -> str:
        """The code of the error that is the last event, or the whole answer."""
        last = self.body.decode().strip().splitlines()[-1].removeprefix("data: ")
        told = json.loads(last)
        return str(told.get("error", told)["code"])


async def exchange(
    app: Any,
    path: str,
    asked: Mapping[str, Any],
    headers: Mapping[str, str],
    trouble: Trouble | None = None,
    stalls_s: float = PATIENCE_S,
) -> Answer:
    """Post JSON, and give what came of it.

    Args:
        app: by ASGI.
        path: where to.
        asked: the JSON.
        headers: besides its type.
        trouble: see there.
        stalls_s: for how long the reader takes nothing; less, if it is given up before.
    """
    answer, has_begun, asked_for, has_stalled = Answer(), asyncio.Event(), asyncio.Event(), asyncio.Event()
    pairs = {"content-type": "application/json", **headers}
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": ("127.0.0.1", 9),
        "server": ("127.0.0.1", 80), "headers": [(name.encode(), value.encode()) for name, value in pairs.items()],
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        if not asked_for.is_set():
            asked_for.set()
            return {"type": "http.request", "body": json.dumps(asked).encode(), "more_body": False}
        await asyncio.sleep(2 * PATIENCE_S)
        return {"type": "http.disconnect"}

    async def send(message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            return
        if trouble == "stalls" and has_begun.is_set() and not has_stalled.is_set():
            has_stalled.set()
            await asyncio.sleep(stalls_s)
        answer.body += message.get("body", b"")
        answer.ended = not message.get("more_body", False)
        if answer.body:
            has_begun.set()

    serving = asyncio.create_task(app(scope, receive, send))
    if trouble == "stops":
        async with asyncio.timeout(PATIENCE_S):
            await has_begun.wait()
        serving.cancel()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await serving
    except (BackendCutOff, FrontendCutOff, LlmCutOff):
        answer.cut_off = True
    return answer
