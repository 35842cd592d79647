"""POST /tokenize, POST /detokenize and GET /tokenizer_info, in the forms that vLLM's and llama.cpp's clients send."""

from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import TypedDict

from functions.backend.application.tokenizer_gateway import TokenizerGateway
from functions.backend.controllers.document import range_schema
from functions.backend.controllers.media_types import expect_json
from functions.backend.controllers.openai.errors import error_answers
from functions.backend.controllers.openai.fields import fault_of, ignored
from functions.backend.controllers.openai.messages import (
    MESSAGES_SCHEMA,
    TOOLS_SCHEMA,
    read_messages,
    read_options,
    read_tools,
)
from functions.backend.controllers.openai.surface import request_body
from functions.backend.controllers.principal import PrincipalOf
from functions.backend.controllers.request_id import request_id_of
from functions.backend.domain.conversation import Conversation
from functions.backend.domain.errors import InvalidRequest
from functions.backend.domain.principal import GENERATE
from functions.backend.domain.prompt import TOKEN_ID
from functions.backend.domain.tokenizer_card import TokenizerCard, Tokens

_FRESH = {"cache-control": "no-store"}
_REFUSALS = (400, 401, 403, 404, 413, 415, 500, 502, 503, 504)
_MODEL = {"name": "model", "in": "query", "required": False, "schema": {"type": "string"}}
# A conversation may be as long as a body: it is counted, not read by a model.
_ANY_LENGTH = 1 << 30


Kind = TypeVar("Kind", bound=BaseModel)


class TokenizeRequest(BaseModel):
    """A text: `prompt` (vLLM), `content` (llama.cpp), or a conversation in `messages`; exactly one of them."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={"oneOf": [{"required": [name]} for name in ("prompt", "content", "messages")]},
    )

    model: str | None = Field(default=None, description="a name from GET /v1/models; null is the default one")
    prompt: str = Field(default="", description="a text")
    content: str = Field(default="", description="a text, too")
    messages: Any = Field(
        default=(),
        description="a conversation, which the model's chat template writes",
        json_schema_extra=MESSAGES_SCHEMA,
    )
    tools: Any = Field(default=None, description="of the conversation", json_schema_extra=TOOLS_SCHEMA)
    chat_template_kwargs: dict[str, Any] | None = Field(default=None, description="more variables for the template")
    add_generation_prompt: bool | None = Field(
        default=None, description="whether the template begins the answer, true if null"
    )
    return_token_strs: bool | None = Field(default=None, description="tell each token's text, too")
    with_pieces: bool | None = Field(
        default=None, description="tell tokens as objects of id and piece: its text, or its bytes where it has none"
    )
    add_special_tokens: Any = ignored("no token is ever added to a text")
    add_special: Any = ignored("no token is ever added to a text")
    parse_special: Any = ignored("a mark's spelling is the mark")

    def text(self) -> str | Conversation:
        """Give what is to be cut.

        Raises:
            InvalidRequest: there is nothing, or more than one thing.
        """
        given = [name for name in ("prompt", "content", "messages") if name in self.model_fields_set]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise InvalidRequest(f"Send one of prompt, content and messages; there is {found}.", field="prompt")
        tools = read_tools(self.tools)
        if given != ["messages"]:
            return self.prompt or self.content
        return Conversation(
            read_messages(self.messages),
            _ANY_LENGTH,
            tools,
            read_options(self.chat_template_kwargs),
            self.add_generation_prompt is not False,
        )


class DetokenizeRequest(BaseModel):
    """Tokens of a text."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    model: str | None = Field(default=None, description="a name from GET /v1/models; null is the default one")
    tokens: Annotated[
        list[Annotated[int, Field(ge=0, le=int(TOKEN_ID.high), json_schema_extra=range_schema(TOKEN_ID))]],
        Field(fail_fast=True),
    ]


class Piece(TypedDict):
    """A token as llama.cpp tells it: a part of a character has no text, and is a list of bytes."""

    id: int
    piece: str | list[int]


class TokenizeAnswer(TypedDict):
    """A text's tokens; `token_strs` is null unless it was asked for."""

    tokens: list[int] | list[Piece]
    count: int
    max_model_len: int
    token_strs: list[str] | None


class DetokenizeAnswer(TypedDict):
    """The tokens' text, twice: vLLM's clients look for `prompt`, llama.cpp's for `content`."""

    prompt: str
    content: str


class TokenizerInfo(TypedDict):
    """What evaluations want to know of a tokenizer; a mark that it does not have is null."""

    model: str
    tokenizer_class: str
    vocab_size: int
    model_max_length: int
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    unk_token: str | None
    additional_special_tokens: list[str]
    chat_template: str


def tokenization_router(tokenizers: TokenizerGateway, principal_of: PrincipalOf) -> APIRouter:
    """Give the routes that tell of tokens."""
    router = APIRouter(tags=["tokens"])

    @router.post(
        "/tokenize",
        summary="Cut a text into tokens",
        responses={200: {"model": TokenizeAnswer, "description": "The tokens"}, **error_answers(*_REFUSALS)},
        openapi_extra=request_body(TokenizeRequest),
    )
    async def tokenize(request: Request) -> Response:
        (await principal_of(request)).require(GENERATE)
        expect_json(request.headers.get("content-type"))
        asked = _read(TokenizeRequest, await request.body())
        request_id = request_id_of(request.scope)
        tokens = await tokenizers.tokenize(asked.text(), asked.model, request_id)
        card = await tokenizers.tokenizer(tokens.model, request_id)
        return JSONResponse(_tokenize_answer(asked, tokens, card), headers=_FRESH)

    @router.post(
        "/detokenize",
        summary="Put tokens together",
        responses={200: {"model": DetokenizeAnswer, "description": "Their text"}, **error_answers(*_REFUSALS)},
        openapi_extra=request_body(DetokenizeRequest),
    )
    async def detokenize(request: Request) -> Response:
        (await principal_of(request)).require(GENERATE)
        expect_json(request.headers.get("content-type"))
        asked = _read(DetokenizeRequest, await request.body())
        text = await tokenizers.detokenize(asked.tokens, asked.model, request_id_of(request.scope))
        return JSONResponse(DetokenizeAnswer(prompt=text, content=text), headers=_FRESH)

    @router.get(
        "/tokenizer_info",
        summary="Tell of a model's tokenizer",
        responses={
            200: {"model": TokenizerInfo, "description": "What is known"},
            **error_answers(401, 403, 404, 500, 502, 503, 504),
        },
        openapi_extra={"parameters": [_MODEL]},
    )
    async def tokenizer_info(request: Request) -> Response:
        (await principal_of(request)).require(GENERATE)
        card = await tokenizers.tokenizer(request.query_params.get("model"), request_id_of(request.scope))
        return JSONResponse(_info(card), headers=_FRESH)

    return router


def _read(kind: type[Kind], body: bytes) -> Kind:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise fault_of(error, kind) from error


def _tokenize_answer(asked: TokenizeRequest, tokens: Tokens, card: TokenizerCard) -> TokenizeAnswer:
    strings = [piece.decode("utf-8", "replace") for piece in tokens.pieces]
    told: list[int] | list[Piece] = list(tokens.ids)
    if asked.with_pieces:
        told = [Piece(id=token_id, piece=_piece(raw)) for token_id, raw in zip(tokens.ids, tokens.pieces, strict=True)]
    return TokenizeAnswer(
        tokens=told,
        count=len(tokens.ids),
        max_model_len=card.max_prompt_tokens,
        token_strs=strings if asked.return_token_strs else None,
    )


def _piece(raw: bytes) -> str | list[int]:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return list(raw)


def _info(card: TokenizerCard) -> TokenizerInfo:
    return TokenizerInfo(
        model=card.model,
        tokenizer_class=card.kind,
        vocab_size=card.vocab_size,
        model_max_length=card.max_prompt_tokens,
        bos_token=card.bos_token,
        eos_token=card.eos_token,
        pad_token=None,
        unk_token=None,
        additional_special_tokens=sorted(card.special_tokens),
        chat_template=card.chat_template,
    )
