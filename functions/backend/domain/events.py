"""What a generation tells while it runs: tokens, then exactly one end."""

from dataclasses import dataclass

from functions.backend.domain.errors import DeadlineExceeded, LLMError, LLMFailed, LLMRefused


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token the model could have chosen here; `raw` is what it is made of where no text can say it."""

    id: int
    text: str
    logprob: float
    raw: bytes | None = None


@dataclass(frozen=True, slots=True)
class Logprobs:
    """What the model thought of a token; `token` is None for a sequence's first, which nothing predicted.

    `raw` is the token's own bytes where its text is not all that they are: a part of a character, a mark. `offset` is
    where its own text begins, in characters, unless the text of the tokens before it ends there.
    """

    token: float | None
    top: tuple[Alternative, ...]
    raw: bytes | None = None
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """One token. `position` counts from the prompt's first token; `text` may be empty, and is never half a character.

    `logprobs` is None unless the request asked for them.
    """

    position: int
    id: int
    text: str
    logprobs: Logprobs | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """How many tokens went in and came out, and what that took.

    `cached_prompt_tokens` are those of the prompt that need not be read again, `cpu_seconds` the model's share of CPU.
    `gb_seconds` and `cost_usd` estimate the model's function; None where nobody is charged.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_prompt_tokens: int = 0
    cpu_seconds: float = 0.0
    gb_seconds: float | None = None
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The generation is complete. `seed` and `model` repeat it, also where the request left them open."""

    finish_reason: str
    usage: Usage
    seed: int
    model: str


@dataclass(frozen=True, slots=True)
class StreamError:
    """The generation ended before it was complete.

    `status` and `field` are those of a refusal: of one text among several, others of which had begun.
    """

    code: str
    message: str
    retryable: bool
    status: int | None = None
    field: str | None = None


Event = Token | Done | StreamError


def end_of(error: LLMError) -> StreamError:
    """Give the end that an error is for somebody who has seen a part of what was asked for."""
    status = error.status if isinstance(error, LLMRefused) else None
    return StreamError(error.code, error.message, error.retryable, status, error.field)


def failure_of(error: StreamError) -> LLMError:
    """Give the error that this end is for somebody who wanted the whole text, or has seen nothing of it."""
    if error.code == DeadlineExceeded.code:
        return DeadlineExceeded(error.message)
    return LLMFailed(error.code, error.message, retryable=error.retryable)
