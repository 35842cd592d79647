"""An llm function for the operations to ask, as an ASGI app: its wire, without a model.

The prompt decides: `slow N` pauses N seconds, `refuse` is a 422, `fail once PATH` a 503 until the file PATH is there.
FAKE_MODEL is the model that it says it is; FAKE_DELAY_S what it takes before it begins; FAKE_LOGPROB its first tokens'
probability, but not in its first answer where FAKE_SOUND_ONCE is a file that is not there; FAKE_STREAM how it streams:
`together`, `break` with an exception, or `fast`, where only long texts take time.
"""

import asyncio
import json
import os
from pathlib import Path

CHUNKS = 5


async def app(scope, receive, send):
    """Answer as the llm function does."""
    if scope["type"] != "http":
        return
    body = json.loads((await receive())["body"])
    prompt = body["prompt"]
    _note(prompt)
    await asyncio.sleep(float(os.environ.get("FAKE_DELAY_S", "0")))
    if isinstance(prompt, str) and prompt.startswith("slow"):
        await asyncio.sleep(float(prompt.split()[1]))
    if prompt == "refuse":
        await _answer(send, 422, {"error": {"code": "invalid_prompt", "message": "It says refuse."}})
    elif isinstance(prompt, str) and prompt.startswith("fail once") and _is_first(Path(prompt.split()[2])):
        await _answer(send, 503, {"error": {"code": "queue_full", "message": "Come again.", "retryable": True}})
    elif scope["path"] == "/generate":
        tokens = [{"i": i, "id": 1, "text": "a", "logprob": -0.5} for i in range(body.get("max_tokens", 1))]
        sound_once = os.environ.get("FAKE_SOUND_ONCE")
        if os.environ.get("FAKE_LOGPROB") and not (sound_once and _is_first(Path(sound_once))):
            tokens[0]["logprob"] = float(os.environ["FAKE_LOGPROB"])
        answer = {"text": f"{prompt}!", "finish_reason": "length", "model": os.environ.get("FAKE_MODEL", "raven")}
        await _answer(send, 200, answer | {"tokens": tokens} if body.get("logprobs") is not None else answer)
    else:
        await _stream(send, os.environ.get("FAKE_STREAM", ""), body["max_tokens"])


def _note(prompt):
    if log := os.environ.get("FAKE_LOG"):
        with Path(log).open("a", encoding="utf-8") as file:
            file.write(json.dumps(prompt) + "\n")


def _is_first(marker):
    if marker.exists():
        return False
    marker.touch()
    return True


async def _stream(send, kind, max_tokens):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    if kind == "together":
        await send({"type": "http.response.body", "body": b"all at once"})
        return
    for number in range(CHUNKS):
        await send({"type": "http.response.body", "body": b"chunk %d " % number, "more_body": True})
        if kind == "break" and number == 2:
            raise RuntimeError("the model is gone")
        if kind != "fast" or max_tokens > 1000:
            await asyncio.sleep(0.02)
    await send({"type": "http.response.body", "body": b""})


async def _answer(send, status, body):
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})
