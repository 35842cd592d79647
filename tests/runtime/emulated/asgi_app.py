"""An app that does what its path says, for tests of the runtime."""

import asyncio
import json
import os
import random
import time
from pathlib import Path

started = 0


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await _lifespan(scope, receive, send)
        return
    name = scope["path"].strip("/") or "echo"
    await globals()[name](scope, receive, send)


async def _lifespan(scope, receive, send):
    global started
    assert (await receive())["type"] == "lifespan.startup"
    started += 1
    if os.environ.get("FAIL_TO_START"):
        await send({"type": "lifespan.startup.failed", "message": "as asked"})
        return
    await asyncio.sleep(float(os.environ.get("STARTS_IN_S", "0")))
    scope["state"]["started"] = started
    print("started up", flush=True)
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    print("shut down", flush=True)
    await send({"type": "lifespan.shutdown.complete"})


async def _start(send, status=200, content_type=b"text/plain", *more):
    headers = [(b"Content-Type", content_type), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _write(send, data, more_body=True):
    await send({"type": "http.response.body", "body": data, "more_body": more_body})


async def _answer(send, content):
    await _start(send, 200, b"application/json")
    await _write(send, json.dumps(content).encode(), more_body=False)


async def echo(scope, receive, send):
    """What the app was asked, as it saw it."""
    body = (await receive())["body"]
    await _answer(
        send,
        {
            "method": scope["method"],
            "path": scope["path"],
            "query": scope["query_string"].decode(),
            "headers": {name.decode(): value.decode() for name, value in scope["headers"]},
            "header_list": [[name.decode(), value.decode()] for name, value in scope["headers"]],
            "body": body.decode(),
            "process": os.getpid(),
            "state": scope["state"],
            "request_id": scope["aws.context"].aws_request_id,
            "trace": os.environ.get("_X_AMZN_TRACE_ID"),
        },
    )


async def gated(scope, receive, send):
    """Each chunk only once the one before it has been received at the other end, which then makes a file."""
    gate = Path(scope["query_string"].decode())
    await _start(send)
    for number in range(5):
        await _write(send, b"chunk %d" % number)
        while not (gate / str(number)).exists():
            await asyncio.sleep(0.001)
    await _write(send, b"", more_body=False)


async def headed(scope, receive, send):
    """A head with everything in it."""
    cookies = (b"Set-Cookie", b"a=1; Path=/"), (b"set-cookie", b"b=2")
    await _start(send, 418, b"text/plain", (b"X-One", b"1"), (b"x-one", b"2"), (b"x-two", b"caf\xe9"), *cookies)
    await _write(send, b"short and stout", more_body=False)


async def two_chunks(scope, receive, send):
    """What the app for AWS's Node client sends, too."""
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"text/plain"),
                (b"x-name", "Änne".encode("latin-1")),
                (b"set-cookie", b"a=b"),
            ],
        }
    )
    await _write(send, b"one")
    await _write(send, "two é".encode())
    if scope["query_string"] == b"fail":
        raise RangeError("broken")
    await _write(send, b"", more_body=False)


class RangeError(Exception):
    pass


async def fail_early(scope, receive, send):
    raise RangeError("before the start")


async def return_early(scope, receive, send):
    await _start(send)
    await _write(send, b"half")


async def no_start(scope, receive, send):
    return


async def empty(scope, receive, send):
    """No byte of a body, by whatever status the query says."""
    await _start(send, int(scope["query_string"]), b"text/plain", (b"content-length", b"0"))
    await _write(send, b"", more_body=False)


async def endless(scope, receive, send):
    """Goes on until it is stopped, and says so when it is."""
    await _start(send, 200, b"text/event-stream; charset=utf-8")
    try:
        for number in range(10_000):
            await _write(send, b"event: token\ndata: %d\n\n" % number)
            await asyncio.sleep(0.02)
    finally:
        print("stopped", flush=True)


async def stuck(scope, receive, send):
    await asyncio.sleep(60)


async def departure(scope, receive, send):
    """Ends when the client is said to have left, which Lambda never says: when the time is up."""
    await receive()
    await _start(send, 200, b"text/event-stream")
    await _write(send, b"data: half an eve")
    while (await receive())["type"] != "http.disconnect":
        pass


async def slow(scope, receive, send):
    """Ten chunks in half a second, and a note at the end."""
    await _start(send)
    for number in range(10):
        await asyncio.sleep(0.05)
        await _write(send, b"%d" % number)
    await _write(send, b"", more_body=False)
    print("slow is done", flush=True)


async def together(scope, receive, send):
    """Answers once as many as the query says are here at once."""
    global here
    here += 1
    while here < int(scope["query_string"]):
        await asyncio.sleep(0.001)
    await _answer(send, os.getpid())


here = 0


async def after(scope, receive, send):
    """Works on after its response."""
    await _answer(send, "done")
    await asyncio.sleep(0.2)
    print("worked on", flush=True)


async def randomness(scope, receive, send):
    await _answer(send, [random.random(), time.time()])


async def large(scope, receive, send):
    """Seven megabytes."""
    await _start(send)
    for _ in range(7):
        await _write(send, b"x" * 1_000_000)
    await _write(send, b"", more_body=False)


async def no_lifespan(scope, receive, send):
    """An app by itself, which knows nothing but requests."""
    assert scope["type"] == "http"
    await _answer(send, "no lifespan")


async def hooked(scope, receive, send):
    await _answer(send, hooks)


hooks: list[str] = []
random.seed(1)
if os.environ.get("REGISTER_HOOKS"):
    import snapshot_restore_py

    for name in ("first", "second"):
        snapshot_restore_py.register_before_snapshot(hooks.append, f"before {name}")
        snapshot_restore_py.register_after_restore(hooks.append, f"after {name}")
if os.environ.get("FAIL_AFTER_RESTORE"):
    import snapshot_restore_py

    def refuse():
        raise RangeError("no way back")

    snapshot_restore_py.register_after_restore(refuse)
