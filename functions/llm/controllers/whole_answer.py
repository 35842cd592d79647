"""Events as one JSON object, once they are all there."""

from collections.abc import Sequence
from typing import Any

from functions.llm.controllers.event_stream import done_json, token_json
from functions.llm.inference.generation import Done, Event, Token


def answer_json(events: Sequence[Event]) -> dict[str, Any]:
    """Return the answer that ``events`` make, the last of which is `Done`; scored tokens are shown one by one."""
    done = events[-1]
    assert isinstance(done, Done)
    tokens = [event for event in events if isinstance(event, Token)]
    answer = {"text": "".join(token.text for token in tokens)} | done_json(done)
    if tokens and tokens[0].scores is not None:
        answer["tokens"] = [token_json(token) for token in tokens]
    return answer
