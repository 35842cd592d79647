"""What was said so far: a prompt that the model's own chat template writes."""

import json
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from types import MappingProxyType

from functions.backend.domain.errors import InvalidPrompt

MAX_MESSAGES = 10_000
"""As many as the model service takes."""

# Of a message: its text is counted as such, and its role is one of a few words.
_PLAIN = ("role", "content")


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages, each with a role and its content; at least one, all together at most `max_length` characters.

    `tools` may be called, `options` are more variables for the template, and the answer begins right here where
    `add_generation_prompt`. What a template knows and what it does not is the model service's to say.

    Raises:
        InvalidPrompt: says what was found and what was expected.
    """

    messages: tuple[Mapping[str, object], ...]
    max_length: InitVar[int]
    tools: tuple[Mapping[str, object], ...] = ()
    options: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    add_generation_prompt: bool = True

    def __post_init__(self, max_length: int) -> None:
        if not self.messages:
            raise InvalidPrompt("There is no message. Send at least one.")
        if len(self.messages) > MAX_MESSAGES:
            raise InvalidPrompt(f"There are {len(self.messages)} messages, and may be at most {MAX_MESSAGES}.")
        if self.length > max_length:
            raise InvalidPrompt(
                f"The messages have {self.length} characters with all that belongs to them, and may have at most "
                f"{max_length}. Shorten them."
            )

    @property
    def length(self) -> int:
        """Characters of all contents, and of all else as JSON; the template's own words come on top."""
        contents = sum(len(str(message.get("content", ""))) for message in self.messages)
        others = [{name: message[name] for name in message if name not in _PLAIN} for message in self.messages]
        written = (*filter(None, others), *self.tools, *filter(None, (dict(self.options),)))
        return contents + sum(len(json.dumps(each, ensure_ascii=False)) for each in written)
