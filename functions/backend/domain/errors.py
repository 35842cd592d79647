"""Every way a generation can be refused or fail, each with a code that clients can rely on."""

from functions.backend.domain.quota import RateLimits

# Names say what is the case, as callers read them: LLMBusy, LLMRefused.
# ruff: noqa: N818


class BackendError(Exception):
    """An expected failure: what happened, what was expected, what to do.

    `code` is a stable name for programs, `field` the part of the request that is at fault, and `retryable` says
    whether the same request can succeed later.
    """

    code: str
    retryable: bool = False

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class InvalidRequest(BackendError):
    """A request whose content cannot be served."""

    code = "invalid_request"


class InvalidPrompt(InvalidRequest):
    """A prompt that is empty, or none at all."""

    code = "invalid_prompt"

    def __init__(self, message: str) -> None:
        super().__init__(message, field="prompt")


class PromptTooLong(InvalidRequest):
    """A prompt of more than is read."""

    code = "prompt_too_long"

    def __init__(self, message: str) -> None:
        super().__init__(message, field="prompt")


class LLMError(BackendError):
    """The model service could not do what was asked."""


class LLMUnavailable(LLMError):
    """Nobody answers at the model service's address."""

    code = "llm_unavailable"
    retryable = True
    # What a container that is started again needs until it answers.
    retry_after = "5"


class OutOfTime(LLMError):
    """A time was over before the text was complete, and the model service has worked for it up to then."""

    retryable = True


class LLMTimeout(OutOfTime):
    """The model service was silent for too long."""

    code = "llm_timeout"


class DeadlineExceeded(OutOfTime):
    """The longest that any request may take was over."""

    code = "deadline_exceeded"


class TimeLimitReached(OutOfTime):
    """The time that the request itself allowed was over."""

    code = "time_limit_reached"


class LLMDisconnected(LLMError):
    """The model service left before its answer was complete."""

    code = "llm_disconnected"
    retryable = True

    def __init__(self) -> None:
        super().__init__("The connection to the model service broke before the text was complete. Try again.")


class LLMMisbehaved(LLMError):
    """The model service answered something that is not an answer."""

    code = "llm_error"


class LLMFailed(LLMError):
    """The model service began and then said that it failed; its own code and advice are kept."""

    def __init__(self, code: str, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable


class LLMBusy(LLMError):
    """The model service cannot take the request now, and said when to come back."""

    retryable = True

    def __init__(self, code: str, message: str, *, retry_after: str) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after


class LLMRefused(LLMError):
    """The model service found a fault in the request that only it can see, such as an unknown model.

    `status` is the one it answered with: the refusal is relayed as it came.
    """

    def __init__(self, status: int, code: str, message: str, *, field: str | None) -> None:
        super().__init__(message, field=field)
        self.status = status
        self.code = code


class Unauthenticated(BackendError):
    """Nobody knows who asks: no key and no session, or one that is not, or no longer, good."""

    code = "unauthenticated"


class Forbidden(BackendError):
    """Who asks is known, and may not do this."""

    code = "forbidden"

    def __init__(self, scope: str) -> None:
        super().__init__(f"This needs the scope {scope}, which is not among yours. Use a key that has it.")


class QuotaExceeded(BackendError):
    """Who asks has used what they may; `retry_after_s` says when there is some again, None where waiting is no help."""

    code = "quota_exceeded"

    def __init__(self, message: str, *, retry_after_s: float | None, limits: RateLimits = ()) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.limits = limits
        self.retryable = retry_after_s is not None


class SharedQuotaExceeded(QuotaExceeded):
    """What all readers of the page may use together is used, whoever of them has used it."""

    code = "shared_quota_exceeded"

    def __init__(self, error: QuotaExceeded) -> None:
        message = f"All visitors of the page together share a quota, of which too little is left. {error.message}"
        super().__init__(message, retry_after_s=error.retry_after_s, limits=error.limits)


class KeyStoreUnavailable(BackendError):
    """Where keys and quotas are kept cannot be reached now."""

    code = "key_store_unavailable"
    retryable = True
    retry_after = "2"
