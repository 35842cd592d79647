"""Answers that are sent whole, once all of them is there."""

from collections.abc import Mapping, Sequence

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from functions.backend.domain.errors import InvalidRequest
from functions.backend.domain.generation import Generation
from functions.backend.domain.prompt import Prompt

MAX_SCORES = 600_000
"""Log-probabilities that a whole answer may have.

Each is 20 to 60 bytes of JSON, about 100 where tokens are long words, and little more than the JSON is kept: of 256 MB
and the 75 that a backend has in use by itself, such an answer takes 30 to 60. Six answers of 4096 tokens with 20
alternatives each are within the limit, and so is what evaluations send in a body of 1 MB: token ids, echoed with one
alternative.
"""

# What is on its way to a reader is kept a second time: no more than the server lets wait, too.
_SENT_AT_ONCE = 1 << 16


def expect_fitting(generations: Sequence[Generation], instead: str) -> None:
    """Refuse what would be too much for one answer; `instead` says how it can be had after all.

    Raises:
        InvalidRequest: it has too many log-probabilities.
    """
    asked = sum(map(_scores, generations))
    if asked > MAX_SCORES:
        raise InvalidRequest(
            f"A whole answer may have {MAX_SCORES} log-probabilities, and this one could have {asked}: one and its "
            f"alternatives, for each token that may be generated or is echoed, of each text. {instead}, or ask for "
            "fewer texts, tokens or alternatives.",
            field="logprobs",
        )


def _scores(generation: Generation) -> int:
    """Give how many log-probabilities a text may tell."""
    prompt, options = generation.prompt, generation.options
    if options.logprobs is None:
        return 0
    tokens = options.max_tokens
    if options.echo and isinstance(prompt, Prompt):
        # Text has at most as many tokens as bytes, and for some vocabularies as many; of characters it may have fewer.
        # For others this is several times too many: one long prompt is within the limit all the same, and who sends
        # many at once, to have them scored, sends ids, which are what they are.
        tokens += len(prompt.content.encode() if isinstance(prompt.content, str) else prompt.content)
    return tokens * (1 + options.logprobs)


class WholeAnswer(Response):
    """JSON that came in pieces, and is sent in such that the server takes: a large one is not put together before."""

    media_type = "application/json"

    def __init__(self, pieces: Sequence[bytes | bytearray], headers: Mapping[str, str] | None = None) -> None:
        super().__init__(headers=headers)
        self._pieces = pieces
        self.headers["content-length"] = str(sum(map(len, pieces)))

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        """Send everything, as the client takes it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        held = bytearray()
        for piece in self._pieces:
            for place in range(0, len(piece), _SENT_AT_ONCE):
                held += piece[place : place + _SENT_AT_ONCE]
                if len(held) >= _SENT_AT_ONCE:
                    await send({"type": "http.response.body", "body": bytes(held), "more_body": True})
                    held.clear()
        await send({"type": "http.response.body", "body": bytes(held), "more_body": False})
