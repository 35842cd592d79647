"""What to go on from, and how to choose the tokens: values that cannot be built wrong."""

from collections.abc import Mapping
from copy import copy
from dataclasses import InitVar, dataclass, field
from types import MappingProxyType
from typing import Self

from functions.backend.domain.errors import InvalidPrompt, InvalidRequest, PromptTooLong


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers from `low` to `high`; `low` itself only where `low_included`."""

    low: float
    high: float
    low_included: bool = True

    def __contains__(self, number: float) -> bool:
        return (self.low <= number if self.low_included else self.low < number) and number <= self.high

    def __str__(self) -> str:
        return f"between {self.low} and {self.high}" if self.low_included else f"above {self.low}, at most {self.high}"


TOKEN_ID = Range(0, 2**31 - 1)
BIAS = Range(-100, 100)
RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "max_tokens": Range(1, 4096),
        "temperature": Range(0, 10),
        "top_k": Range(0, TOKEN_ID.high),
        "top_p": Range(0, 1),
        "min_p": Range(0, 1),
        "repetition_penalty": Range(0, 10, low_included=False),
        "presence_penalty": Range(-2, 2),
        "frequency_penalty": Range(-2, 2),
        "penalty_decay": Range(0, 1),
        "seed": Range(0, 2**63 - 1),
        "logprobs": Range(0, 20),
    }
)
MAX_ENTRIES: Mapping[str, int] = MappingProxyType({"stop": 16, "stop_token_ids": 1000, "logit_bias": 1000})
"""How many entries an option may have: the model service's own limits, and as many biases, of which it takes more."""


MAX_CHARACTERS = 100_000
"""Of a text: as many as the model service takes, for while it cuts a long one into tokens, every stream of it waits."""


@dataclass(frozen=True, slots=True)
class PromptLimits:
    """How long a prompt may be: `tokens`, and where it is text, `characters`, for its tokens are not known here.

    Both refusals have OpenAI's words, for some of its clients know by them that less would be read.
    """

    tokens: int
    characters: int = MAX_CHARACTERS

    def expect_characters(self, count: int, where: str = "a text") -> None:
        """Refuse more characters than are read.

        Raises:
            PromptTooLong: says how many there are, and may be.
        """
        if count > self.characters:
            raise PromptTooLong(
                f"{self._said()}; {where} may have {self.characters} characters, and there are {count}. Shorten it."
            )

    def expect_tokens(self, count: int) -> None:
        """Refuse more token ids than are read.

        Raises:
            PromptTooLong: says how many there are, and may be.
        """
        if count > self.tokens:
            raise PromptTooLong(f"{self._said()}. However, the prompt has {count} tokens. Shorten it.")

    def _said(self) -> str:
        return f"This model's maximum context length is {self.tokens} tokens"


@dataclass(frozen=True, slots=True)
class Prompt:
    """Text, trimmed unless told not to, or token ids; never empty, and within the limits.

    `most_tokens` are as many as are read of it: of text its bytes in UTF-8, for a tokenizer of bytes has one for each,
    but no more than the model service lets pass.

    Raises:
        InvalidPrompt, PromptTooLong: says what was found and what was expected.
    """

    content: str | tuple[int, ...]
    limits: InitVar[PromptLimits]
    trimmed: InitVar[bool] = True
    most_tokens: int = field(init=False, repr=False, compare=False)

    def __post_init__(self, limits: PromptLimits, trimmed: bool) -> None:
        if isinstance(self.content, str) and trimmed:
            object.__setattr__(self, "content", self.content.strip())
        if not self.content:
            least = "one character that is not a space" if trimmed else "one character"
            raise InvalidPrompt(f"The prompt is empty. Write at least {least}, or one token id.")
        if isinstance(self.content, str):
            limits.expect_characters(len(self.content))
            most_tokens = min(utf8_length(self.content), limits.tokens)
        else:
            limits.expect_tokens(len(self.content))
            most_tokens = len(self.content)
            for token_id in self.content:
                if token_id not in TOKEN_ID:
                    raise InvalidPrompt(f"The prompt holds the token id {token_id!s:.40}; it must be {TOKEN_ID}.")
        # Once: every text of a request asks for it.
        object.__setattr__(self, "most_tokens", most_tokens)


def utf8_length(text: str) -> int:
    """Give how many bytes a text has in UTF-8; half a character, of which UTF-8 knows nothing, has three."""
    return len(text.encode(errors="surrogatepass"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOptions:
    """How the next token is chosen, and when to stop. A fresh one is what a request that says nothing gets.

    `temperature` 0 is greedy, and so is `top_p` 0; `top_k` 0 is off, `seed` None is drawn by the model service,
    `logprobs` None is none. What depends on the vocabulary (a token id that does not exist) is the model service's to
    refuse.

    Raises:
        InvalidRequest: names the field, what was found and what was expected.
    """

    max_tokens: int = 256
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_decay: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    seed: int | None = None
    logprobs: int | None = None
    echo: bool = False
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        for name in MAX_ENTRIES:
            expect_few(name, len(getattr(self, name)))
        for name, allowed in RANGES.items():
            value: float | None = getattr(self, name)
            if value is not None:
                expect_range(name, value, allowed)
        for token_id, bias in self.logit_bias.items():
            expect_range("logit_bias", token_id, TOKEN_ID)
            expect_range("logit_bias", bias, BIAS)
        for token_id in self.stop_token_ids:
            expect_range("stop_token_ids", token_id, TOKEN_ID)
        if not all(self.stop):
            raise InvalidRequest(
                "stop holds an empty string, which would end every answer. Leave it out.", field="stop"
            )

    def of_text(self, place: int) -> Self:
        """Give the options of one of several texts of a request: with a seed, each has one of its own."""
        if self.seed is None:
            return self
        # Not `replace`, which would check everything again for each of them.
        options = copy(self)
        object.__setattr__(options, "seed", (self.seed + place) % (int(RANGES["seed"].high) + 1))
        return options


def expect_few(name: str, count: int) -> None:
    """Refuse more entries of an option than MAX_ENTRIES says: before they are looked at, for there may be very many.

    Raises:
        InvalidRequest: names the field, how many there are, and may be.
    """
    if count > MAX_ENTRIES[name]:
        raise InvalidRequest(f"{name} has {count} entries and may have at most {MAX_ENTRIES[name]}.", field=name)


def expect_range(name: str, value: float, allowed: Range) -> None:
    """Refuse a number that is out of range.

    Raises:
        InvalidRequest: names the field, what was found and what was expected.
    """
    if value not in allowed:
        raise InvalidRequest(f"{name} is {value!s:.40}; it must be {allowed}.", field=name)
