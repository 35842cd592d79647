"""The fields that requests for completions and for chat have in common, and how their faults are worded."""

from types import NoneType
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, StringConstraints, ValidationError

from functions.backend.controllers.body import Body
from functions.backend.controllers.document import range_schema
from functions.backend.controllers.openai.model_root import model_under
from functions.backend.controllers.wire import InvalidJSON
from functions.backend.domain.errors import InvalidRequest
from functions.backend.domain.prompt import BIAS, MAX_ENTRIES, RANGES, TOKEN_ID, Range, SamplingOptions, expect_range

MAX_CHOICES = 128
"""Texts that one request may ask for."""

SEED = Range(-(2**63), 2**63 - 1)
"""OpenAI's: all of an int64."""

TokenId = Annotated[int, Field(json_schema_extra={"minimum": TOKEN_ID.low, "maximum": TOKEN_ID.high})]
# The model service's own limit; who sends more is told by it.
Stop = Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": 1000})]
TokenIdKey = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]*)$", max_length=10)]
Bias = Annotated[float, Field(json_schema_extra=range_schema(BIAS))]
Biases = Annotated[
    dict[TokenIdKey, Bias],
    Field(json_schema_extra={"additionalProperties": False, "maxProperties": MAX_ENTRIES["logit_bias"]}),
]
Stops = Annotated[list[Stop], Field(fail_fast=True, json_schema_extra={"maxItems": MAX_ENTRIES["stop"]})]
StopIds = Annotated[list[TokenId], Field(fail_fast=True, json_schema_extra={"maxItems": MAX_ENTRIES["stop_token_ids"]})]


def option(name: str, description: str) -> Any:
    """Give the field of a numeric option of the domain; null is the same as leaving it out."""
    return Field(default=None, description=description, json_schema_extra=range_schema(RANGES[name]))


def ignored(description: str) -> Any:
    """Give a field that is accepted and makes no difference here."""
    return Field(default=None, description=f"accepted, and makes no difference here: {description}")


def not_served(advice: str) -> Any:
    """Give a field that would change what comes out, and may only be null here; `advice` says why and what to do."""
    return Field(default=None, description=f"not served: {advice}")


class StreamOptions(Body):
    """How a stream is told."""

    include_usage: bool | None = Field(default=None, description="end with a chunk that has the usage, and no choice")
    include_obfuscation: Any = ignored("nothing is padded")


class ModelRequest(Body):
    """What a model is asked."""

    model: str | None = Field(default=None, description="a name from GET /v1/models; null is the default one")

    @classmethod
    def read(cls, body: bytes, root: str | None) -> Self:
        """Give the request in a body, sent to the root of a model, if to one's.

        Raises:
            InvalidJSON: the body is not JSON in UTF-8.
            InvalidRequest: the JSON is not a request of this kind, or is for another model; names the field.
        """
        try:
            asked = cls.model_validate_json(body)
        except ValidationError as error:
            raise fault_of(error, cls) from error
        asked.model = model_under(root, asked.model)
        return asked


class OpenAIRequest(ModelRequest):
    """What both kinds of request say."""

    n: int | None = Field(
        default=None, description="texts to make, 1 if null", json_schema_extra={"minimum": 1, "maximum": MAX_CHOICES}
    )
    temperature: float | None = option("temperature", "how freely tokens are drawn, 1 if null; 0 takes the likeliest")
    top_p: float | None = option(
        "top_p", "draw among the likeliest tokens that together have this probability; 0 is the likeliest"
    )
    presence_penalty: float | None = option("presence_penalty", "taken from the logit of a token that was generated")
    frequency_penalty: float | None = option("frequency_penalty", "taken once for each time a token was generated")
    logit_bias: Biases | None = Field(default=None, description="token id to what is added to its logit")
    stop: Stop | Stops | None = Field(
        default=None,
        description=f"the text ends before any of these strings, at most {MAX_ENTRIES['stop']}; one may stand alone",
    )
    seed: int | None = Field(
        default=None,
        description="the same seed gives the same text; null draws one",
        json_schema_extra=range_schema(SEED),
    )
    stream: bool | None = Field(default=None, description="send the text as it is made, as server-sent events")
    stream_options: StreamOptions | None = Field(
        default=None, description="makes a difference only where stream is true"
    )

    # Not OpenAI's: the names that other servers gave to what OpenAI does not have.
    top_k: int | None = option("top_k", "draw among this many likeliest tokens; 0 is all")
    min_p: float | None = option("min_p", "drop tokens less likely than this share of the likeliest one")
    repetition_penalty: float | None = option("repetition_penalty", "above 1 makes tokens that were seen less likely")
    penalty_decay: float | None = option("penalty_decay", "what the penalties' counts are multiplied by at each token")
    stop_token_ids: StopIds | None = Field(default=None, description="the text ends at any of these tokens")
    ignore_eos: bool | None = Field(default=None, description="go on where the model would end the text")

    user: Any = ignored("who asks is known by the key")
    metadata: Any = ignored("nothing is stored")
    store: Any = ignored("nothing is stored")
    service_tier: Any = ignored("there is one")
    safety_identifier: Any = ignored("who asks is known by the key")
    prompt_cache_key: Any = ignored("prompts are found again by what they say")
    prompt_cache_options: Any = ignored("prompts are found again by what they say")
    prompt_cache_retention: Any = ignored("prompts are found again by what they say")

    def sampling(self, *, max_tokens: int, logprobs: int | None, echo: bool) -> SamplingOptions:
        """Give the options of all the texts.

        Raises:
            InvalidRequest: a value is out of range.
        """
        given: dict[str, Any] = {
            name: value
            for name in (
                "top_p", "presence_penalty", "frequency_penalty", "top_k", "min_p", "repetition_penalty",
                "penalty_decay", "ignore_eos",
            )
            if (value := getattr(self, name)) is not None
        }  # fmt: skip
        if self.seed is not None:
            expect_range("seed", self.seed, SEED)
            # The model service's begin at 0.
            given["seed"] = self.seed % (int(SEED.high) + 1)
        return SamplingOptions(
            max_tokens=max_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            logit_bias={int(token_id): bias for token_id, bias in (self.logit_bias or {}).items()},
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            stop_token_ids=tuple(self.stop_token_ids or ()),
            logprobs=logprobs,
            echo=echo,
            **given,
        )

    @property
    def choices_each(self) -> int:
        """How many texts each prompt gets."""
        return 1 if self.n is None else self.n

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


def expect_choices(count: int, field: str = "n") -> None:
    """Refuse a number of texts that is not to be had.

    Raises:
        InvalidRequest: names the field.
    """
    if not 1 <= count <= MAX_CHOICES:
        raise InvalidRequest(f"{field} makes {count} texts; a request may have 1 to {MAX_CHOICES}.", field=field)


def fault_of(error: ValidationError, kind: type[BaseModel]) -> InvalidRequest:
    """Say in our words what pydantic found: the first field that is wrong, and everything it says about that one."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    first, where, said = faults[0]["type"], faults[0]["loc"], faults[0]["msg"]
    if first == "json_invalid":
        return InvalidJSON(f"The body is not valid JSON: {said.removeprefix('Invalid JSON: ')}. Send a JSON object.")
    if not where:
        return InvalidRequest("The body is JSON, but not an object. Send a JSON object.")
    name = str(where[0])[:80]
    if first == "extra_forbidden" and len(where) == 1:
        return InvalidRequest(
            f"{name} is not a field of a request here. The fields are: {', '.join(kind.model_fields)}.", field=name
        )
    field = kind.model_fields.get(name)
    if field is not None and field.annotation is NoneType:
        return InvalidRequest(f"{name} is {field.description}.", field=name)
    # A field that may be one of several types is told once for each.
    wanted = dict.fromkeys(fault["msg"].lower() for fault in faults if fault["loc"][:1] == where[:1])
    return InvalidRequest(f"{name}: {', or '.join(wanted)}.", field=name)
