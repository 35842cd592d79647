"""The wire's types: what a request may hold, and what answers look like."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from functions.llm.controllers.errors import InvalidBodyError, InvalidJSONError
from functions.llm.controllers.request_body import MAX_BODY_BYTES
from functions.llm.inference.chat_template import Conversation
from functions.llm.inference.generation import GenerationRequest
from functions.llm.inference.programs import MAX_ALTERNATIVES
from functions.llm.inference.sampling import MAX_SEED, SamplingOptions

# While it is cut into tokens, the interpreter is held: half a second for a long one, for which every stream waits.
MAX_PROMPT_CHARACTERS = 100_000
MAX_TOKENS = 4096

TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
# JSON's names are text. One spelling per id, so that no id stands twice.
TokenIdText = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,8})$")]
StopString = Annotated[str, Field(min_length=1, max_length=1000)]


def _form(value: object) -> str:
    # Without this an error in one form of a field would be reported for the other forms too.
    match value:
        case list():
            return "list"
        case dict() | ConversationBody():
            return "conversation"
        case _:
            return "text"


class Message(BaseModel):
    """One message; what else it holds is the chat template's to know."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    role: str
    content: str = ""


class ConversationBody(BaseModel):
    """What was said so far; the model's chat template writes it."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    messages: list[Message] = Field(min_length=1, max_length=10_000)
    tools: list[dict[str, Any]] = Field(default=[], max_length=1000, description="As OpenAI's API describes them.")
    options: dict[str, Any] = Field(default={}, description="More variables for the template.")
    add_generation_prompt: bool = Field(default=True, description="Whether the answer begins here.")

    def to_conversation(self) -> Conversation:
        """Return what the template is given."""
        return Conversation(
            messages=tuple(message.model_dump() for message in self.messages),
            tools=tuple(self.tools),
            options=self.options,
            add_generation_prompt=self.add_generation_prompt,
        )


Text = Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS)]


class RequestBody(BaseModel):
    """What a request may hold; `EXAMPLE` is what is shown to who sends something else."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    EXAMPLE: ClassVar[str] = '{"prompt": "ROMEO:"}'

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        """Return the request in ``body``; InvalidJSONError or InvalidBodyError say what is wrong with it."""
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
        if problem["type"] == "json_invalid":
            reason = problem["ctx"]["error"]
            raise InvalidJSONError(f"The body is not valid JSON: {reason}. Send a JSON object such as {cls.EXAMPLE}.")
        raise _invalid_body(cls, problem)

    @classmethod
    def openapi(cls) -> dict[str, Any]:
        """Return the request as the OpenAPI document tells it."""
        schema = cls.model_json_schema()
        parts = schema.pop("$defs", {})
        return {
            "requestBody": {"required": True, "content": {"application/json": {"schema": _with_parts(schema, parts)}}}
        }


def _with_parts(schema: Any, parts: dict[str, Any]) -> Any:
    # A reference would look for them in the root of the document, where they are not.
    if isinstance(schema, list):
        return [_with_parts(element, parts) for element in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _with_parts(parts[schema["$ref"].rpartition("/")[2]], parts)
    return {name: _with_parts(value, parts) for name, value in schema.items()}


# How many ids it may have is a setting.
Prompt = Annotated[
    Annotated[Text, Tag("text")]
    | Annotated[list[TokenId], Field(min_length=1), Tag("list")]
    | Annotated[ConversationBody, Tag("conversation")],
    Discriminator(_form),
]


class GenerateBody(RequestBody):
    """A request for text."""

    prompt: Prompt = Field(description="What to go on from: text, token ids, or a conversation.")
    max_tokens: int = Field(256, ge=1, le=MAX_TOKENS, description="How many tokens to generate at most.")
    temperature: float = Field(0.8, ge=0, le=10, description="0 is greedy: the likeliest token, always.")
    top_k: int = Field(0, ge=0, le=2**31 - 1, description="Only the k likeliest tokens; 0 is off.")
    top_p: float = Field(
        1.0, ge=0, le=1, description="Only the likeliest tokens that reach this probability together; one at least."
    )
    min_p: float = Field(0.0, ge=0, le=1, description="Only tokens this many times as likely as the likeliest.")
    repetition_penalty: float = Field(
        1.0, gt=0, le=10, description="Above 1, tokens of prompt and output are less likely."
    )
    presence_penalty: float = Field(0.0, ge=-2, le=2, description="Subtracted from the logits of the output's tokens.")
    frequency_penalty: float = Field(0.0, ge=-2, le=2, description="The same, for each time the output has the token.")
    penalty_decay: float = Field(1.0, ge=0, le=1, description="Each token multiplies the counts of the two by this.")
    logit_bias: dict[TokenIdText, Annotated[float, Field(ge=-100, le=100)]] = Field(
        default={}, description="Added to the logits, by token id."
    )
    stop: Annotated[
        Annotated[StopString, Tag("text")] | Annotated[list[StopString], Field(max_length=16), Tag("list")],
        Discriminator(_form),
    ] = Field(default=[], description="Strings that end the text and are not part of it; one may stand without a list.")
    stop_token_ids: list[TokenId] = Field(default=[], max_length=1000, description="Tokens that end the text.")
    seed: int | None = Field(
        None, ge=0, le=MAX_SEED, description="With the same seed the answer is the same; null draws one."
    )
    logprobs: int | None = Field(
        None, ge=0, le=MAX_ALTERNATIVES, description="How many alternatives to report per token."
    )
    echo: bool = Field(default=False, description="Whether the prompt comes first, as it was sent.")
    ignore_eos: bool = Field(default=False, description="Whether to go on after the vocabulary's own end token.")
    model: str | None = Field(None, max_length=200, description="One of GET /models; null is the default.")

    def to_request(self, drawn_seed: int) -> GenerationRequest:
        """Return what is asked for; ``drawn_seed`` is used if the request has none."""
        return GenerationRequest(
            prompt=_prompt(self.prompt),
            max_tokens=self.max_tokens,
            sampling=SamplingOptions(
                temperature=self.temperature,
                top_k=self.top_k,
                top_p=self.top_p,
                min_p=self.min_p,
                repetition_penalty=self.repetition_penalty,
                presence_penalty=self.presence_penalty,
                frequency_penalty=self.frequency_penalty,
                penalty_decay=self.penalty_decay,
                logit_bias={int(token_id): bias for token_id, bias in self.logit_bias.items()},
            ),
            seed=drawn_seed if self.seed is None else self.seed,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop),
            stop_token_ids=frozenset(self.stop_token_ids),
            logprobs=self.logprobs,
            echo=self.echo,
            ignore_eos=self.ignore_eos,
        )


class CheckBody(RequestBody):
    """Prompts that may be generated from."""

    EXAMPLE = '{"prompts": ["ROMEO:", [1, 2]]}'

    prompts: list[Prompt] = Field(min_length=1, description="Texts, lists of token ids, or conversations.")
    model: str | None = Field(None, max_length=200, description="One of GET /models; null is the default.")

    def to_prompts(self) -> tuple[str | tuple[int, ...] | Conversation, ...]:
        """Return what is to be checked."""
        return tuple(map(_prompt, self.prompts))


class CheckAnswer(BaseModel):
    """All prompts can be generated from."""

    model: str


def _prompt(prompt: str | list[int] | ConversationBody) -> str | tuple[int, ...] | Conversation:
    match prompt:
        case ConversationBody():
            return prompt.to_conversation()
        case str():
            return prompt
        case _:
            return tuple(prompt)


def _invalid_body(kind: type[RequestBody], problem: Any) -> InvalidBodyError:
    # The names of the forms of a field are ours, and mean nothing to the client.
    place = [str(part) for part in problem["loc"] if part not in ("list", "text", "conversation", "[key]")]
    if not place:
        return InvalidBodyError(
            None, f"The body is {_shown(problem['input'])}; send a JSON object such as {kind.EXAMPLE}."
        )
    field, name = place[0], ".".join(place)
    match problem["type"]:
        case "missing":
            message = f"{name} is missing. Send a JSON object such as {kind.EXAMPLE}."
        case "extra_forbidden":
            message = f"{name[:100]} is not known. The fields are: {', '.join(kind.model_fields)}."
        case _:
            expected = problem["msg"][0].lower() + problem["msg"][1:]
            if name in ("prompt", "stop") and problem["type"] == "string_type":
                expected = f"input should be text or a list of {'token ids' if name == 'prompt' else 'texts'}"
            message = f"{name[:100]} is {_shown(problem['input'])}: {expected}."
    return InvalidBodyError(field, message)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class Usage(BaseModel):
    """What an answer took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_prompt_tokens: int = Field(description="Tokens of the prompt that need not be read again.")
    cpu_seconds: float = Field(description="Time of the CPU; what runs together shares it.")


class TokenEvent(BaseModel):
    """One token; ``logprob`` and ``top`` are there if log-probabilities were asked for."""

    i: int = Field(description="Position in the whole sequence; the prompt's first token is 0.")
    id: int
    text: str = Field(description="Empty while a character is incomplete or a stop string may be beginning.")
    logprob: float | None = Field(
        default=None, description="By the model alone; null for the first token of the prompt."
    )
    top: list[tuple[int, str, float] | tuple[int, str, float, str]] | None = Field(
        default=None,
        description="Alternatives: id, text, log-probability, and the bytes in hexadecimal where they are no UTF-8.",
    )
    bytes: str | None = Field(
        default=None, description="The token's own bytes in hexadecimal, where `text` is not all that they are."
    )
    offset: int | None = Field(
        default=None,
        description="Where the token's own text begins, in characters, unless the text of those before ends there.",
    )


class GenerateAnswer(BaseModel):
    """A whole answer."""

    model: str
    text: str
    finish_reason: Literal["stop", "length"]
    usage: Usage
    seed: int
    tokens: list[TokenEvent] | None = Field(default=None, description="There if log-probabilities were asked for.")


class TokenizeBody(RequestBody):
    """A text to be cut into tokens."""

    prompt: Annotated[
        Annotated[str, Field(max_length=MAX_BODY_BYTES), Tag("text")]
        | Annotated[ConversationBody, Tag("conversation")],
        Discriminator(_form),
    ] = Field(description="Text, or a conversation.")
    model: str | None = Field(None, max_length=200, description="One of GET /models; null is the default.")


class TokenizeAnswer(BaseModel):
    """A text's tokens."""

    model: str
    tokens: list[int]
    pieces: list[str] = Field(description="The bytes of each, in hexadecimal.")


class DetokenizeBody(RequestBody):
    """Tokens to be put together."""

    EXAMPLE = '{"tokens": [1, 2]}'

    tokens: list[TokenId]
    model: str | None = Field(None, max_length=200, description="One of GET /models; null is the default.")


class DetokenizeAnswer(BaseModel):
    """The tokens' text."""

    model: str
    text: str


class TokenizerAnswer(BaseModel):
    """What there is to know of a model's tokenizer."""

    model: str
    kind: str = Field(description="byte, char or bpe.")
    vocab_size: int
    max_prompt_tokens: int = Field(description="Longer prompts are refused.")
    bos_token: str | None = Field(description="The mark that begins a text, if there is one.")
    eos_token: str | None = Field(description="The mark that ends one.")
    special_tokens: dict[str, int]
    chat_template: str


class ModelAnswer(BaseModel):
    """A model that can be asked for."""

    name: str
    family: str
    vocab_size: int
    tokenizer: str
    parameters: int
    size_bytes: int
    digest: str = Field(description="SHA-256 of the weights.")
    default: bool


class ModelsAnswer(BaseModel):
    """All models that can be asked for."""

    models: list[ModelAnswer]


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class Ready(BaseModel):
    """The default model is loaded and compiled."""

    status: Literal["ready"]
    model: str


class ErrorDetail(BaseModel):
    """What happened, what was expected, what to do."""

    code: str
    message: str
    field: str | None = Field(description="The field of the request that is to blame, if one is.")
    retryable: bool = Field(description="Whether the same request may succeed later.")


class ErrorAnswer(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail
