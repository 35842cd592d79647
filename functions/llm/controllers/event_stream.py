"""Events as text/event-stream."""

import json
from collections.abc import Iterable
from typing import Any

from functions.llm.controllers.errors import Problem
from functions.llm.inference.generation import Done, Event, Token


class EventStream:
    """Typed events; an error is the last of them."""

    media_type = "text/event-stream"
    error_ends_the_body = True

    def encode(self, events: Iterable[Event]) -> bytes:
        """Return the frames of ``events``."""
        return b"".join(
            _frame("token", token_json(event)) if isinstance(event, Token) else _frame("done", done_json(event))
            for event in events
        )

    def encode_error(self, problem: Problem) -> bytes:
        """Return the frame that ends a stream which failed."""
        return _frame("error", {"code": problem.code, "message": problem.message, "retryable": problem.retryable})


def token_json(token: Token) -> dict[str, Any]:
    """Return a token's fields on the wire."""
    fields: dict[str, Any] = {"i": token.position, "id": token.id, "text": token.text}
    if token.scores is not None:
        fields["logprob"] = token.scores.logprob
        fields["top"] = [[other.id, other.text, other.logprob] for other in token.scores.top]
    return fields


def done_json(done: Done) -> dict[str, Any]:
    """Return the end's fields on the wire."""
    return {
        "finish_reason": done.finish_reason,
        "usage": {
            "prompt_tokens": done.prompt_tokens,
            "completion_tokens": done.completion_tokens,
            "total_tokens": done.prompt_tokens + done.completion_tokens,
        },
        "seed": done.seed,
        "model": done.model,
    }


def _frame(event: str, data: dict[str, Any]) -> bytes:
    # JSON has no raw line end, so one data line holds all of it.
    encoded = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"event: {event}\ndata: {encoded}\n\n".encode()
