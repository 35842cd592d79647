"""What was said so far: a prompt that the model's own chat template writes."""

import json
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from types import MappingProxyType

from functions.backend.domain.errors import InvalidPrompt
from functions.backend.domain.prompt import PromptLimits, utf8_length

MAX_MESSAGES = 10_000
"""As many as the model service takes."""

# Of a message: its text is counted as such, and its role is one of a few words.
_PLAIN = ("role", "content")


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages, each with a role and its content; at least one, all together within the limits.

    The limit of characters is for what was written: contents, and all else but roles as JSON. `most_tokens` is for what
    is read of it: a template writes some words of its own around each message, so each counts whole, as JSON in UTF-8,
    of which no tokenizer makes more tokens than bytes; and no more than the model service lets pass.

    `tools` may be called, `options` are more variables for the template, and the answer begins right here where
    `add_generation_prompt`. What a template knows and what it does not is the model service's to say.

    Raises:
        InvalidPrompt, PromptTooLong: says what was found and what was expected.
    """

    messages: tuple[Mapping[str, object], ...]
    limits: InitVar[PromptLimits]
    tools: tuple[Mapping[str, object], ...] = ()
    options: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    add_generation_prompt: bool = True
    most_tokens: int = field(init=False, repr=False, compare=False)

    def __post_init__(self, limits: PromptLimits) -> None:
        if not self.messages:
            raise InvalidPrompt("There is no message. Send at least one.")
        if len(self.messages) > MAX_MESSAGES:
            raise InvalidPrompt(f"There are {len(self.messages)} messages, and may be at most {MAX_MESSAGES}.")
        limits.expect_characters(self._length(), "a conversation, with all that belongs to it,")
        written = utf8_length(_json([*self.messages, *self._besides()]))
        # Once: every text of a request asks for it.
        object.__setattr__(self, "most_tokens", min(written, limits.tokens))

    def _length(self) -> int:
        contents = sum(len(str(message.get("content", ""))) for message in self.messages)
        others = [{name: message[name] for name in message if name not in _PLAIN} for message in self.messages]
        return contents + sum(len(_json(each)) for each in (*filter(None, others), *self._besides()))

    def _besides(self) -> tuple[Mapping[str, object], ...]:
        return (*self.tools, *filter(None, (self.options,)))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=dict)
