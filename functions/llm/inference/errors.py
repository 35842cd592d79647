"""What inference refuses, each with what was found and what was expected."""

import math


class InferenceError(Exception):
    """A request that inference cannot serve; its message is for the client."""


class InvalidOptionError(InferenceError, ValueError):
    """An option of a request is outside its range.

    Args:
        field: the option's name on the wire.
        message: what it is and what it should be.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field} {message}")
        self.field = field


class InvalidPromptError(InferenceError, ValueError):
    """A prompt that the model cannot read."""


class PromptTooLongError(InferenceError, ValueError):
    """A prompt of more tokens than are read for one request."""

    def __init__(self, tokens: int, max_tokens: int) -> None:
        super().__init__(
            # OpenAI's words: some of its clients know by them that less would be read.
            f"This model's maximum context length is {max_tokens} tokens. However, the prompt has {tokens} tokens. "
            "Shorten it."
        )


class ModelNotFoundError(InferenceError):
    """A name that no checkpoint folder has."""

    def __init__(self, name: str, available: tuple[str, ...]) -> None:
        there = f"The models here: {', '.join(available)}." if available else "There is no model here at all."
        super().__init__(f"There is no model {name[:100]!r}. {there}")
        self.available = available


class QueueFullError(InferenceError):
    """So many requests wait that one more would wait too long.

    Args:
        waiting: how many wait.
        free_in_s: about how long until one more may wait, seconds.
    """

    def __init__(self, waiting: int, free_in_s: float) -> None:
        self.retry_after_s = max(1, math.ceil(free_in_s))
        super().__init__(f"The queue is full: {waiting} requests wait already. Try again in {self.retry_after_s} s.")


class DeadlineExceededError(InferenceError):
    """The time that the request allowed has passed."""

    def __init__(self, after_s: float) -> None:
        super().__init__(
            f"The request was given up after {after_s:.1f} s, the time it allowed. Ask for fewer tokens, allow more "
            "time, or try again when the service is less busy."
        )


class SlowReaderError(InferenceError):
    """The client does not take what is made for it."""

    def __init__(self) -> None:
        super().__init__(
            "The text was given up, because its reader takes it too slowly and too much of it would wait. Read faster, "
            "or ask for fewer tokens."
        )


class EngineStoppedError(InferenceError):
    """The service ends: nothing new begins, and what runs is cut off."""

    def __init__(self) -> None:
        super().__init__(
            "The service is stopping. Send the request again: another instance, or this one restarted, will answer."
        )
