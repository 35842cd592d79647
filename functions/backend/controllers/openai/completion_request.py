"""What POST /v1/completions takes."""

from dataclasses import dataclass
from typing import Any

from pydantic import Field

from functions.backend.controllers.document import range_schema
from functions.backend.controllers.openai.fields import (
    MAX_CHOICES,
    OpenAIRequest,
    expect_choices,
    ignored,
    not_served,
    option,
)
from functions.backend.domain.errors import InvalidPrompt, InvalidRequest
from functions.backend.domain.generation import Generation
from functions.backend.domain.prompt import RANGES, TOKEN_ID, Prompt, PromptLimits, Range, expect_range

# What OpenAI gives to a request that does not say.
USUAL_MAX_TOKENS = 16
# OpenAI's begin at 0: who only wants to hear of the prompt.
MAX_TOKENS = Range(0, RANGES["max_tokens"].high)

_TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
_IDS: dict[str, Any] = {"type": "array", "minItems": 1, "items": {"type": "integer", **range_schema(TOKEN_ID)}}
_PROMPT_SCHEMA: dict[str, Any] = {
    "anyOf": [
        _TEXT,
        {"type": "array", "minItems": 1, "maxItems": MAX_CHOICES, "items": _TEXT},
        _IDS,
        {"type": "array", "minItems": 1, "maxItems": MAX_CHOICES, "items": _IDS},
    ]
}


class CompletionsRequest(OpenAIRequest):
    """A prompt or several, and how to go on from each."""

    prompt: Any = Field(
        description="text, taken as it is; or a list of texts, of token ids, or of lists of token ids",
        examples=["ROMEO:"],
        json_schema_extra=_PROMPT_SCHEMA,
    )
    max_tokens: int | None = Field(
        default=None,
        description=f"how many tokens to generate at most, {USUAL_MAX_TOKENS} if null; 0 generates nothing",
        json_schema_extra=range_schema(MAX_TOKENS),
    )
    logprobs: int | None = option("logprobs", "tell each token's log probability and this many alternatives")
    echo: bool | None = Field(
        default=None,
        description="begin with the prompt as it was sent, and the log probabilities of its tokens as read",
    )
    best_of: int | None = Field(
        default=None,
        description="make so many texts of each prompt, and give the n that are likeliest per token; not for a stream",
        json_schema_extra={"minimum": 1, "maximum": MAX_CHOICES},
    )
    suffix: None = not_served(
        "the models here go on from a prompt, and do not fill in between two texts. Put everything into the prompt"
    )
    add_special_tokens: Any = ignored("no token is ever added to a prompt")


@dataclass(frozen=True, slots=True)
class CompletionOrder:
    """What a request asks for: `made` texts of each prompt, of which `given` are given."""

    generations: tuple[Generation, ...]
    made: int
    given: int
    wants_logprobs: bool
    drops_the_last: bool
    """Whether the request wants no new token: one is made, for a model must be asked for one, and is not shown."""


def read_order(request: CompletionsRequest, limits: PromptLimits) -> CompletionOrder:
    """Give the generations that a request asks for, prompt by prompt.

    Raises:
        InvalidRequest: names the field.
    """
    given = request.choices_each
    made = given if request.best_of is None else request.best_of
    if made < given:
        raise InvalidRequest(f"best_of is {made} and n is {given}; best_of must be at least n.", field="best_of")
    if made > given and request.stream:
        raise InvalidRequest(
            "best_of is not for a stream, for the best is known at the end. Leave out stream.", field="best_of"
        )
    contents = _prompts(request.prompt, limits)
    prompts = [Prompt(content, limits, trimmed=False) for content in contents]
    expect_choices(made, "n" if made == given else "best_of")
    expect_choices(made * len(prompts), "prompt")
    max_tokens = USUAL_MAX_TOKENS if request.max_tokens is None else request.max_tokens
    expect_range("max_tokens", max_tokens, MAX_TOKENS)
    # To find the best of them, their log-probabilities must be known.
    logprobs = request.logprobs if request.logprobs is not None or made == given else 0
    options = request.sampling(max_tokens=max_tokens or 1, logprobs=logprobs, echo=bool(request.echo))
    each = [options.of_text(place) for place in range(made)]
    return CompletionOrder(
        generations=tuple(Generation(prompt, options, request.model) for prompt in prompts for options in each),
        made=made,
        given=given,
        wants_logprobs=request.logprobs is not None,
        drops_the_last=max_tokens == 0,
    )


def _prompts(prompt: object, limits: PromptLimits) -> list[str | tuple[int, ...]]:
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, list) and prompt:
        if not isinstance(prompt[0], str | list):
            return [_ids(prompt, limits)]
        # Before any of them is looked at: a body has room for hundreds of thousands.
        expect_choices(len(prompt), "prompt")
        if all(isinstance(part, str) for part in prompt):
            return list(prompt)
        if all(isinstance(part, list) for part in prompt):
            return [_ids(part, limits) for part in prompt]
    raise InvalidPrompt(
        "The prompt must be text, a list of texts, a list of token ids, or a list of such lists, none of them empty."
    )


def _ids(ids: list[object], limits: PromptLimits) -> tuple[int, ...]:
    limits.expect_tokens(len(ids))
    checked = []
    for token_id in ids:
        if token_id is None:
            # lm-evaluation-harness puts its prefix token here, which a tokenizer without marks does not have.
            raise InvalidPrompt(
                "The prompt holds null among its token ids: this model's tokenizer has no token for the beginning of a "
                "text. Where the client puts one there, tell it which to take (lm-eval: custom_prefix_token_id)."
            )
        # A boolean is a number to Python, and not to JSON.
        if not isinstance(token_id, int) or isinstance(token_id, bool):
            raise InvalidPrompt(f"The prompt holds {token_id!r:.40} among its token ids; ids are whole numbers.")
        checked.append(token_id)
    return tuple(checked)
