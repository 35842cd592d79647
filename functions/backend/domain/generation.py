"""One request for text."""

from dataclasses import dataclass, field

from functions.backend.domain.conversation import Conversation
from functions.backend.domain.prompt import Prompt, SamplingOptions


@dataclass(frozen=True, slots=True)
class Generation:
    """What to go on from, how, and with which model; None is the one that serves by default."""

    prompt: Prompt | Conversation
    options: SamplingOptions = field(default_factory=SamplingOptions)
    model: str | None = None
