"""An ASGI app of nothing but chunks, each with the time at which it was sent, for `runtime_overhead`."""

import asyncio
import time
from typing import Any
from urllib.parse import parse_qs

CHUNK = b"@%020d@ ravens\n"
"""As long as a token's event is at the least; the time is that of `time.monotonic_ns`, the same for all processes."""


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Send as many chunks as the query's ``count`` says, ``pace_us`` microseconds apart."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    query = parse_qs(scope["query_string"].decode())
    count, pace_s = int(query.get("count", ["1"])[0]), int(query.get("pace_us", ["0"])[0]) / 1e6
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    for _ in range(count):
        if pace_s:
            await asyncio.sleep(pace_s)
        await send({"type": "http.response.body", "body": CHUNK % time.monotonic_ns(), "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
