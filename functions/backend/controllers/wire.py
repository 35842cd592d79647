"""The API's own JSON: what is accepted, what is sent. The types here are also what the OpenAPI document is made of."""

import json
from collections.abc import Iterator
from typing import Annotated, Any, NotRequired

from pydantic import Field, StringConstraints, ValidationError
from typing_extensions import TypedDict

from functions.backend.controllers.body import Body
from functions.backend.controllers.document import range_schema
from functions.backend.controllers.written_list import WrittenList
from functions.backend.domain.errors import InvalidPrompt, InvalidRequest
from functions.backend.domain.events import Done, Event, StreamError, Token
from functions.backend.domain.generation import Generation
from functions.backend.domain.model_card import ModelCard
from functions.backend.domain.prompt import BIAS, MAX_ENTRIES, RANGES, TOKEN_ID, Prompt, PromptLimits, SamplingOptions

_USUAL = SamplingOptions()
# Made once: json.dumps with options makes an encoder at every call.
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class InvalidJSON(InvalidRequest):
    """A body that is not JSON at all."""

    code = "invalid_json"


def _option(name: str, description: str) -> Any:
    """Give the field of a numeric option, with the domain's default and range."""
    return Field(default=getattr(_USUAL, name), description=description, json_schema_extra=range_schema(RANGES[name]))


TokenId = Annotated[int, Field(json_schema_extra=range_schema(TOKEN_ID))]
TokenIdKey = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]*)$", max_length=10)]
Bias = Annotated[float, Field(json_schema_extra=range_schema(BIAS))]
Stop = Annotated[str, Field(json_schema_extra={"minLength": 1})]
# The first wrong element is enough to know: a list may have half a million of them.
TokenIds = Annotated[list[TokenId], Field(fail_fast=True)]
Stops = Annotated[list[Stop], Field(fail_fast=True, json_schema_extra={"maxItems": MAX_ENTRIES["stop"]})]


class GenerationRequest(Body):
    """A prompt and how to go on from it."""

    prompt: str | TokenIds = Field(
        description="text, trimmed and then not empty, or a list of token ids",
        examples=["ROMEO:"],
        json_schema_extra={"minLength": 1, "minItems": 1},
    )
    max_tokens: int = _option("max_tokens", "how many tokens at most")
    temperature: float = _option("temperature", "how freely tokens are drawn; 0 always takes the likeliest")
    top_k: int = _option("top_k", "draw among this many likeliest tokens; 0 is all")
    top_p: float = _option(
        "top_p", "draw among the likeliest tokens that together have this probability; 0 is the likeliest"
    )
    min_p: float = _option("min_p", "drop tokens less likely than this share of the likeliest one")
    repetition_penalty: float = _option("repetition_penalty", "above 1 makes tokens that were seen less likely")
    presence_penalty: float = _option("presence_penalty", "taken from the logit of a token that was generated")
    frequency_penalty: float = _option("frequency_penalty", "taken once for each time a token was generated")
    penalty_decay: float = _option("penalty_decay", "what the penalties' counts are multiplied by at each token")
    logit_bias: dict[TokenIdKey, Bias] = Field(
        default={},
        description="token id to what is added to its logit",
        json_schema_extra={"additionalProperties": False, "maxProperties": MAX_ENTRIES["logit_bias"]},
    )
    stop: Stop | Stops = Field(
        default=[],
        description=f"the answer ends before any of these strings, at most {MAX_ENTRIES['stop']}; one may stand alone",
    )
    stop_token_ids: TokenIds = Field(
        default=[],
        description="the answer ends at any of these tokens",
        json_schema_extra={"maxItems": MAX_ENTRIES["stop_token_ids"]},
    )
    seed: int | None = _option("seed", "the same seed gives the same text; null draws one and reports it")
    logprobs: int | None = _option("logprobs", "tell each token's log probability and this many alternatives")
    echo: bool = Field(default=False, description="begin with the prompt, as it was sent, by its tokens")
    ignore_eos: bool = Field(default=False, description="go on where the model would end the answer")
    model: str | None = Field(default=None, description="a name from GET /api/llm/models; null is the default one")


def read_generation(body: bytes, limits: PromptLimits) -> Generation:
    """Give the generation a request's body asks for.

    Raises:
        InvalidJSON: the body is not JSON in UTF-8.
        InvalidPrompt, PromptTooLong, InvalidRequest: the JSON is not a request we serve; names the field.
    """
    try:
        wire = GenerationRequest.model_validate_json(body)
    except ValidationError as error:
        raise _fault(error) from error
    return Generation(
        prompt=Prompt(wire.prompt if isinstance(wire.prompt, str) else tuple(wire.prompt), limits),
        options=SamplingOptions(
            max_tokens=wire.max_tokens,
            temperature=wire.temperature,
            top_k=wire.top_k,
            top_p=wire.top_p,
            min_p=wire.min_p,
            repetition_penalty=wire.repetition_penalty,
            presence_penalty=wire.presence_penalty,
            frequency_penalty=wire.frequency_penalty,
            penalty_decay=wire.penalty_decay,
            logit_bias={int(token_id): bias for token_id, bias in wire.logit_bias.items()},
            stop=(wire.stop,) if isinstance(wire.stop, str) else tuple(wire.stop),
            stop_token_ids=tuple(wire.stop_token_ids),
            seed=wire.seed,
            logprobs=wire.logprobs,
            echo=wire.echo,
            ignore_eos=wire.ignore_eos,
        ),
        model=wire.model,
    )


def _fault(error: ValidationError) -> InvalidRequest:
    """Say in our words what pydantic found: the first field that is wrong, and everything it says about that one."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    kind, where, said = faults[0]["type"], faults[0]["loc"], faults[0]["msg"]
    if kind == "json_invalid":
        reason = said.removeprefix("Invalid JSON: ")
        return InvalidJSON(f'The body is not valid JSON: {reason}. Send a JSON object such as {{"prompt": "ROMEO:"}}.')
    if not where:
        return InvalidRequest('The body is JSON, but not an object. Send one such as {"prompt": "ROMEO:"}.')
    name = str(where[0])[:80]
    if kind == "extra_forbidden":
        known = ", ".join(GenerationRequest.model_fields)
        return InvalidRequest(f"{name} is not a field of a request. The fields are: {known}.", field=name)
    # A field that may be one of two types is told once for each.
    wanted = dict.fromkeys(fault["msg"].lower() for fault in faults if fault["loc"][:1] == where[:1])
    message = f"{name}: {', or '.join(wanted)}."
    return InvalidPrompt(message) if name == "prompt" else InvalidRequest(message, field=name)


class TokenBody(TypedDict):
    """A token; `logprob` and `top` (id, text, logprob) are there when logprobs were asked for.

    `bytes` are the token's own, in hexadecimal, where `text` is not all that they are; a fourth element of `top` is the
    same of an alternative that no text can say. `offset` is where the token's own text begins, in characters, unless
    the text of those before it ends there.
    """

    i: int
    id: int
    text: str
    logprob: NotRequired[float | None]
    top: NotRequired[list[tuple[int, str, float] | tuple[int, str, float, str]]]
    bytes: NotRequired[str]
    offset: NotRequired[int]


class UsageBody(TypedDict):
    """How many tokens went in and came out, how many of the prompt need not be read, and the model's CPU seconds.

    Who has a key or a session is also told what that costs, about: the model's function in GB-seconds, and dollars.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_prompt_tokens: int
    cpu_seconds: float
    gb_seconds: NotRequired[float]
    cost_usd: NotRequired[float]


class DoneBody(TypedDict):
    """The end of a stream that is complete."""

    finish_reason: str
    usage: UsageBody
    seed: int
    model: str


class StreamErrorBody(TypedDict):
    """The end of a stream that is not complete."""

    code: str
    message: str
    retryable: bool


class CompletionBody(TypedDict):
    """A whole text; `tokens` is there when logprobs were asked for."""

    model: str
    text: str
    finish_reason: str
    usage: UsageBody
    seed: int
    tokens: NotRequired[list[TokenBody]]


class ModelBody(TypedDict):
    """A model that can be asked."""

    name: str
    family: str
    vocab_size: int
    tokenizer: str
    parameters: int
    size_bytes: int
    digest: str
    default: bool


class ModelsBody(TypedDict):
    """The models that can be asked."""

    models: list[ModelBody]


def write_event(event: Event) -> bytes:
    """Give an event as one frame of text/event-stream."""
    match event:
        case Token() if event.logprobs is None:
            # Every token of every stream comes by here: the same JSON in a fifth of the time.
            text = _to_json(event.text)
            return f'event: token\ndata: {{"i":{event.position},"id":{event.id},"text":{text}}}\n\n'.encode()
        case Token():
            return _frame("token", token_body(event))
        case Done():
            return _frame("done", done_body(event))
        case StreamError():
            return _frame("error", StreamErrorBody(code=event.code, message=event.message, retryable=event.retryable))


def _frame(kind: str, body: TokenBody | DoneBody | StreamErrorBody) -> bytes:
    # JSON escapes line breaks, so the data is always one line.
    return f"event: {kind}\ndata: {_to_json(body)}\n\n".encode()


def token_body(token: Token) -> TokenBody:
    """Give a token as JSON."""
    body = TokenBody(i=token.position, id=token.id, text=token.text)
    if token.logprobs is not None:
        body["logprob"] = token.logprobs.token
        body["top"] = [
            (other.id, other.text, other.logprob)
            if other.raw is None
            else (other.id, other.text, other.logprob, other.raw.hex())
            for other in token.logprobs.top
        ]
        if token.logprobs.raw is not None:
            body["bytes"] = token.logprobs.raw.hex()
        if token.logprobs.offset is not None:
            body["offset"] = token.logprobs.offset
    return body


def done_body(done: Done) -> DoneBody:
    """Give the end of a stream as JSON."""
    usage = UsageBody(
        prompt_tokens=done.usage.prompt_tokens,
        completion_tokens=done.usage.completion_tokens,
        total_tokens=done.usage.total_tokens,
        cached_prompt_tokens=done.usage.cached_prompt_tokens,
        cpu_seconds=done.usage.cpu_seconds,
    )
    if done.usage.gb_seconds is not None and done.usage.cost_usd is not None:
        usage["gb_seconds"] = round(done.usage.gb_seconds, 6)
        usage["cost_usd"] = round(done.usage.cost_usd, 12)
    return DoneBody(finish_reason=done.finish_reason, usage=usage, seed=done.seed, model=done.model)


class WholeText:
    """A whole text, as it comes."""

    def __init__(self, *, with_tokens: bool) -> None:
        self._texts: list[str] = []
        self._tokens = WrittenList() if with_tokens else None

    def take(self, token: Token) -> None:
        """Keep what is told of a token."""
        self._texts.append(token.text)
        if self._tokens is not None:
            self._tokens.add(token_body(token))

    def answer(self, done: Done) -> Iterator[bytes | bytearray]:
        """Give a CompletionBody as JSON, in pieces."""
        end = done_body(done)
        body = CompletionBody(
            model=end["model"],
            text="".join(self._texts),
            finish_reason=end["finish_reason"],
            usage=end["usage"],
            seed=end["seed"],
        )
        yield _to_json(body)[:-1].encode()
        if self._tokens is not None:
            yield b',"tokens":'
            yield from self._tokens.pieces()
        yield b"}"


def models_body(cards: tuple[ModelCard, ...]) -> ModelsBody:
    """Give the list of models as JSON."""
    return ModelsBody(
        models=[
            ModelBody(
                name=card.name,
                family=card.family,
                vocab_size=card.vocab_size,
                tokenizer=card.tokenizer,
                parameters=card.parameters,
                size_bytes=card.size_bytes,
                digest=card.digest,
                default=card.default,
            )
            for card in cards
        ]
    )
