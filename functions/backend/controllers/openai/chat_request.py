"""What POST /v1/chat/completions takes."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from functions.backend.controllers.openai.fields import OpenAIRequest, expect_choices, ignored, not_served
from functions.backend.controllers.openai.messages import (
    MESSAGES_SCHEMA,
    TOOLS_SCHEMA,
    names_of,
    read_messages,
    read_options,
    read_tools,
)
from functions.backend.domain.conversation import Conversation
from functions.backend.domain.errors import InvalidRequest
from functions.backend.domain.generation import Generation
from functions.backend.domain.prompt import RANGES, PromptLimits, expect_range

# OpenAI's models go on until they end; one that does not know how to would never.
USUAL_MAX_TOKENS = 1024

_MAX_TOKENS_SCHEMA: dict[str, Any] = {"minimum": RANGES["max_tokens"].low, "maximum": RANGES["max_tokens"].high}


class ChatRequest(OpenAIRequest):
    """A conversation, and how to go on with it."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"required": ["top_logprobs"], "properties": {"top_logprobs": {"type": "integer", "minimum": 1}}},
            "then": {"required": ["logprobs"], "properties": {"logprobs": {"const": True}}},
        }
    )

    messages: Any = Field(
        description="what was said so far; the model's chat template writes it",
        examples=[[{"role": "user", "content": "Who goes there?"}]],
        json_schema_extra=MESSAGES_SCHEMA,
    )
    max_completion_tokens: int | None = Field(
        default=None,
        description=f"how many tokens to generate at most, {USUAL_MAX_TOKENS} if null",
        json_schema_extra=_MAX_TOKENS_SCHEMA,
    )
    max_tokens: int | None = Field(
        default=None,
        description="the older name of max_completion_tokens, which wins",
        json_schema_extra=_MAX_TOKENS_SCHEMA,
    )
    logprobs: bool | None = Field(default=None, description="tell each token's log probability")
    top_logprobs: int | None = Field(
        default=None,
        description="and this many alternatives; only where logprobs is true",
        json_schema_extra={"minimum": 0, "maximum": RANGES["logprobs"].high},
    )
    tools: Any = Field(
        default=None,
        description="functions that may be called, for a model whose chat template knows them",
        json_schema_extra=TOOLS_SCHEMA,
    )
    tool_choice: Any = Field(
        default=None,
        description='"auto", or "none": the answer calls nothing. Nothing here can make a model call',
        json_schema_extra={"enum": ["auto", "none", None]},
    )
    response_format: Any = Field(
        default=None,
        description="text alone: nothing here holds a model to a form",
        json_schema_extra={"enum": [{"type": "text"}, None]},
    )
    modalities: Annotated[list[Literal["text"]], Field(fail_fast=True)] | None = Field(
        default=None, description="text alone"
    )
    chat_template_kwargs: dict[str, Any] | None = Field(
        default=None, description="not OpenAI's: more variables for the chat template"
    )
    add_generation_prompt: bool | None = Field(
        default=None, description="not OpenAI's: whether the template begins the answer, true if null"
    )
    parallel_tool_calls: Any = ignored("as many calls are told as the model makes")
    prediction: Any = ignored("it would only make a long answer faster")
    verbosity: Any = ignored("the model is as brief as it is")
    functions: None = not_served("tools replaced it. Send tools")
    function_call: None = not_served("tool_choice replaced it. Send tool_choice")
    audio: None = not_served("the models here write text. Leave it out")
    moderation: None = not_served("nothing here moderates. Leave it out")
    reasoning_effort: None = not_served("the models here do not reason before they answer. Leave it out")
    web_search_options: None = not_served("nothing here searches the web. Leave it out")


@dataclass(frozen=True, slots=True)
class ChatOrder:
    """What a request asks for: a generation for each answer, and which functions an answer may call."""

    generations: tuple[Generation, ...]
    wants_logprobs: bool
    callable: frozenset[str]


def read_chat_order(request: ChatRequest, limits: PromptLimits) -> ChatOrder:
    """Give the generations that a request asks for.

    Raises:
        InvalidRequest: names the field.
    """
    _expect_text(request)
    expect_choices(request.choices_each)
    tools = read_tools(request.tools)
    if request.tool_choice == "none":
        tools = ()
    conversation = Conversation(
        read_messages(request.messages),
        limits,
        tools,
        read_options(request.chat_template_kwargs),
        request.add_generation_prompt is not False,
    )
    max_tokens = USUAL_MAX_TOKENS
    for name in ("max_tokens", "max_completion_tokens"):
        asked = getattr(request, name)
        if asked is not None:
            expect_range(name, asked, RANGES["max_tokens"])
            max_tokens = asked
    logprobs = (request.top_logprobs or 0) if request.logprobs else None
    options = request.sampling(max_tokens=max_tokens, logprobs=logprobs, echo=False)
    return ChatOrder(
        generations=tuple(
            Generation(conversation, options.of_text(place), request.model) for place in range(request.choices_each)
        ),
        wants_logprobs=logprobs is not None,
        callable=names_of(tools),
    )


def _expect_text(request: ChatRequest) -> None:
    top = request.top_logprobs
    if top is not None:
        expect_range("top_logprobs", top, RANGES["logprobs"])
    if top and not request.logprobs:
        raise InvalidRequest(
            "top_logprobs is only for logprobs. Set logprobs to true, or leave it out.", field="top_logprobs"
        )
    if request.tool_choice not in (None, "auto", "none"):
        raise InvalidRequest(
            'tool_choice must be "auto" or "none": nothing here can make a model call a function.', field="tool_choice"
        )
    if request.response_format not in (None, {"type": "text"}):
        raise InvalidRequest(
            'response_format must be {"type": "text"}: nothing holds a model to another form. Ask for it in words.',
            field="response_format",
        )
