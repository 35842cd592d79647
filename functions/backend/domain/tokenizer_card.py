"""What is known of a model's tokens."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenizerCard:
    """A model's tokenizer; a mark that it does not have is None.

    `kind` is byte, char or bpe, `max_prompt_tokens` the longest prompt that is read, `chat_template` Jinja.
    """

    model: str
    kind: str
    vocab_size: int
    max_prompt_tokens: int
    bos_token: str | None
    eos_token: str | None
    special_tokens: Mapping[str, int]
    chat_template: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text in tokens; `pieces` are their bytes, and joined they are the text."""

    model: str
    ids: tuple[int, ...]
    pieces: tuple[bytes, ...]
