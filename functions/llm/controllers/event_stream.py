"""Events as text/event-stream."""

import json
from collections.abc import Iterable
from typing import Any

from functions.llm.controllers.errors import Problem
from functions.llm.inference.generation import Alternative, Done, Event, Token

# Made once: json.dumps with options makes an encoder at every call, which costs more than a token's JSON.
_to_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class EventStream:
    """Typed events; an error is the last of them."""

    media_type = "text/event-stream"
    error_ends_the_body = True

    def encode(self, events: Iterable[Event]) -> bytes:
        """Return the frames of ``events``."""
        frames = [
            _token_frame(event) if isinstance(event, Token) else _frame("done", done_json(event)) for event in events
        ]
        return "".join(frames).encode()

    def encode_error(self, problem: Problem) -> bytes:
        """Return the frame that ends a stream which failed."""
        fields = {"code": problem.code, "message": problem.message, "retryable": problem.retryable}
        return _frame("error", fields).encode()


def token_json(token: Token) -> dict[str, Any]:
    """Return a token's fields on the wire."""
    fields: dict[str, Any] = {"i": token.position, "id": token.id, "text": token.text}
    if token.scores is not None:
        fields["logprob"] = token.scores.logprob
        fields["top"] = [_alternative_json(other) for other in token.scores.top]
        if token.scores.raw is not None:
            fields["bytes"] = token.scores.raw.hex()
        if token.scores.offset is not None:
            fields["offset"] = token.scores.offset
    return fields


def _alternative_json(other: Alternative) -> list[Any]:
    fields = [other.id, other.text, other.logprob]
    return fields if other.raw is None else [*fields, other.raw.hex()]


def done_json(done: Done) -> dict[str, Any]:
    """Return the end's fields on the wire."""
    return {
        "finish_reason": done.finish_reason,
        "usage": {
            "prompt_tokens": done.prompt_tokens,
            "completion_tokens": done.completion_tokens,
            "total_tokens": done.prompt_tokens + done.completion_tokens,
            "cached_prompt_tokens": done.cached_prompt_tokens,
            "cpu_seconds": round(done.cpu_seconds, 6),
        },
        "seed": done.seed,
        "model": done.model,
    }


def _token_frame(token: Token) -> str:
    if token.scores is not None:
        return _frame("token", token_json(token))
    # Every token of every stream comes by here: the same JSON in a tenth of the time.
    return f'event: token\ndata: {{"i":{token.position},"id":{token.id},"text":{_to_json(token.text)}}}\n\n'


def _frame(event: str, data: dict[str, Any]) -> str:
    # JSON has no raw line end, so one data line holds all of it.
    return f"event: {event}\ndata: {_to_json(data)}\n\n"
