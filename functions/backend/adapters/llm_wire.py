"""The model service's JSON, read and written. What it says beyond what is known here is let pass: it may grow."""

import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from functions.backend.adapters.event_stream import Frame
from functions.backend.domain.conversation import Conversation
from functions.backend.domain.errors import LLMMisbehaved
from functions.backend.domain.events import Alternative, Done, Event, Logprobs, StreamError, Token, Usage
from functions.backend.domain.generation import Generation
from functions.backend.domain.llm_status import InstanceStatus
from functions.backend.domain.model_card import ModelCard
from functions.backend.domain.prompt import Prompt, SamplingOptions

_STATUS = TypeAdapter(InstanceStatus)


def write_request(generation: Generation) -> bytes:
    """Give the body that asks for this generation. What the client left open is left open, not filled in."""
    usual = SamplingOptions()
    body: dict[str, object] = {"prompt": write_prompt(generation.prompt)}
    for option in fields(SamplingOptions):
        value = getattr(generation.options, option.name)
        if value != getattr(usual, option.name):
            body[option.name] = value
    if generation.model is not None:
        body["model"] = generation.model
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=dict).encode()


def write_check(prompts: Sequence[Prompt | Conversation], model: str | None) -> bytes:
    """Give the body that asks whether these can be generated from."""
    body: dict[str, object] = {"prompts": [write_prompt(prompt) for prompt in prompts]}
    if model is not None:
        body["model"] = model
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=dict).encode()


def write_prompt(prompt: Prompt | Conversation) -> object:
    """Give a prompt as the model service takes it. What a conversation does not have is left open."""
    if isinstance(prompt, Prompt):
        return prompt.content
    body: dict[str, object] = {"messages": prompt.messages}
    if prompt.tools:
        body["tools"] = prompt.tools
    if prompt.options:
        body["options"] = prompt.options
    if not prompt.add_generation_prompt:
        body["add_generation_prompt"] = False
    return body


def read_event(frame: Frame) -> Event | None:
    """Give the event a frame tells; None for a kind that is not known here.

    Raises:
        LLMMisbehaved: a known kind with data that does not fit it.
    """
    read = _READERS.get(frame.event)
    if read is None:
        return None
    try:
        return read(frame.data)
    except ValidationError as error:
        raise LLMMisbehaved(f"The model service sent a {frame.event} event we cannot read: {_reason(error)}") from error


def read_models(body: bytes) -> tuple[ModelCard, ...]:
    """Give the models of a `GET /models` answer.

    Raises:
        LLMMisbehaved: the answer is not such a list.
    """
    try:
        return tuple(ModelCard(**dict(card)) for card in _Models.model_validate_json(body).models)
    except ValidationError as error:
        raise LLMMisbehaved(f"The model service sent a list of models we cannot read: {_reason(error)}") from error


def read_status(body: bytes) -> InstanceStatus:
    """Give what a `GET /status` answer says.

    Raises:
        LLMMisbehaved: the answer is no status.
    """
    try:
        return _STATUS.validate_json(body)
    except ValidationError as error:
        raise LLMMisbehaved(f"The model service sent a status we cannot read: {_reason(error)}") from error


class ErrorDetail(BaseModel):
    """What an error answer of the model service says."""

    model_config = ConfigDict(strict=True)

    code: str
    message: str
    field: str | None = None
    retryable: bool = False


def read_error(body: bytes) -> ErrorDetail | None:
    """Give what an error answer says; None where the body is not the model service's kind of error."""
    try:
        return _ErrorBody.model_validate_json(body).error
    except ValidationError:
        return None


Hex = Annotated[str, Field(pattern=r"^([0-9a-f]{2})*$")]


class _ErrorBody(BaseModel):
    error: ErrorDetail


class _Wire(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Token(_Wire):
    i: Annotated[int, Field(ge=0)]
    id: Annotated[int, Field(ge=0)]
    text: str
    logprob: float | None = None
    top: tuple[tuple[int, str, float] | tuple[int, str, float, Hex], ...] | None = None
    bytes: Hex | None = None
    offset: Annotated[int, Field(ge=0)] | None = None


class _Usage(_Wire):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_prompt_tokens: Annotated[int, Field(ge=0)] = 0
    cpu_seconds: Annotated[float, Field(ge=0)] = 0.0


class _Done(_Wire):
    finish_reason: Literal["stop", "length"]
    usage: _Usage
    seed: int
    model: str


class _Error(_Wire):
    code: str
    message: str
    retryable: bool


class _Model(_Wire):
    name: str
    family: str
    vocab_size: int
    tokenizer: str
    parameters: int
    size_bytes: int
    digest: str
    default: bool


class _Models(_Wire):
    models: tuple[_Model, ...]


def _read_token(data: str) -> Token:
    token = _Token.model_validate_json(data)
    # `top` is there exactly where logprobs were asked for; `logprob` alone may be null.
    logprobs = None
    if token.top is not None:
        raw = None if token.bytes is None else bytes.fromhex(token.bytes)
        logprobs = Logprobs(token.logprob, tuple(map(_alternative, token.top)), raw, token.offset)
    return Token(token.i, token.id, token.text, logprobs)


def _alternative(fields: tuple[int, str, float] | tuple[int, str, float, str]) -> Alternative:
    return Alternative(*fields[:3], bytes.fromhex(fields[3]) if len(fields) == 4 else None)


def _read_done(data: str) -> Done:
    done = _Done.model_validate_json(data)
    return Done(done.finish_reason, Usage(**dict(done.usage)), done.seed, done.model)


def _read_stream_error(data: str) -> StreamError:
    return StreamError(**dict(_Error.model_validate_json(data)))


_READERS: dict[str, Callable[[str], Event]] = {"token": _read_token, "done": _read_done, "error": _read_stream_error}


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}." if where else f"{first['msg']}."
