"""Something like Huginn's API, to be probed: it writes a word every few milliseconds, or what goes wrong."""

import asyncio
import json
import os


async def app(scope, receive, send):
    """Answer the two requests that the probe makes."""
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    headers = dict(scope["headers"])
    if scope["method"] == "GET":
        # The page, which is open to everybody.
        cookies = [(b"set-cookie", b"other=1; Path=/"), (b"set-cookie", b"huginn_session=v1.a.b; Path=/; HttpOnly")]
        await send({"type": "http.response.start", "status": 200, "headers": cookies})
        await send(chunk(b"<html>"))
        return
    if os.environ.get("ASKS") and headers.get(b"cookie") != b"huginn_session=v1.a.b":
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send(chunk(b"nobody"))
        return
    request = json.loads(body)
    accept = headers[b"accept"]
    status = int(os.environ.get("STATUS", "200"))
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", accept)]})
    if accept == b"text/event-stream":
        last = os.environ.get("LAST_EVENT", "done")
        await send(chunk(b'event: token\ndata: {"i": 0}\n\n', more=True))
        await send(chunk(f"event: {last}\ndata: {{}}\n\n".encode()))
        return
    for _ in range(16):
        await send(chunk(b"x" * (request["max_tokens"] // 16), more=True))
        await asyncio.sleep(0.005)
    await send(chunk(b""))


def chunk(body: bytes, *, more: bool = False):
    """A message of a body."""
    return {"type": "http.response.body", "body": body, "more_body": more}
