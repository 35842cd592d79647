"""POST /tokenize, POST /detokenize and GET /tokenizer_info, in the forms that vLLM's and llama.cpp's clients send."""

import asyncio
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from functions.backend.application.metering import Metering
from functions.backend.application.tokenizer_gateway import TokenizerGateway
from functions.backend.controllers.body import read_body
from functions.backend.controllers.document import range_schema
from functions.backend.controllers.media_types import expect_json
from functions.backend.controllers.metered import admitted
from functions.backend.controllers.openai.errors import error_answers
from functions.backend.controllers.openai.fields import ModelRequest, ignored
from functions.backend.controllers.openai.messages import (
    MESSAGES_SCHEMA,
    TOOLS_SCHEMA,
    read_messages,
    read_options,
    read_tools,
)
from functions.backend.controllers.openai.model_root import model_root_of, model_under
from functions.backend.controllers.openai.surface import request_body
from functions.backend.controllers.openai.tokens_answer import TokenizeAnswer, write_tokens
from functions.backend.controllers.principal import PrincipalOf
from functions.backend.controllers.request_id import request_id_of
from functions.backend.controllers.whole_answer import WholeAnswer
from functions.backend.domain.conversation import Conversation
from functions.backend.domain.errors import InvalidPrompt, InvalidRequest, PromptTooLong
from functions.backend.domain.principal import GENERATE
from functions.backend.domain.prompt import MAX_CHARACTERS, TOKEN_ID, PromptLimits, utf8_length
from functions.backend.domain.tokenizer_card import TokenizerCard

_FRESH = {"cache-control": "no-store"}
_REFUSALS = (400, 401, 403, 404, 408, 413, 415, 429, 500, 502, 503, 504)
_MODEL = {"name": "model", "in": "query", "required": False, "schema": {"type": "string"}}
# More tokens than a prompt may have: evaluations cut whole documents, and have them read in windows.
_MAX_LENGTH = MAX_CHARACTERS
_LIMITS = PromptLimits(tokens=1_000_000)


class TokenizeRequest(ModelRequest):
    """A text: `prompt` (vLLM), `content` (llama.cpp), or a conversation in `messages`; exactly one of them."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": [name]} for name in ("prompt", "content", "messages")]}
    )

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
            InvalidRequest: there is nothing, more than one thing, or too much.
        """
        given = [name for name in ("prompt", "content", "messages") if name in self.model_fields_set]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise InvalidRequest(f"Send one of prompt, content and messages; there is {found}.", field="prompt")
        tools = read_tools(self.tools)
        if given != ["messages"]:
            text = self.prompt or self.content
            if len(text) > _MAX_LENGTH:
                raise InvalidRequest(_too_long(given[0], len(text), "characters"), field=given[0])
            return text
        messages, options = read_messages(self.messages), read_options(self.chat_template_kwargs)
        try:
            return Conversation(messages, _LIMITS, tools, options, self.add_generation_prompt is not False)
        except PromptTooLong as error:
            raise InvalidRequest(
                f"messages have, with all that belongs to them, more than {_MAX_LENGTH} characters. Send fewer.",
                field="messages",
            ) from error
        except InvalidPrompt as error:
            raise InvalidRequest(error.message, field="messages") from error


class DetokenizeRequest(ModelRequest):
    """Tokens of a text."""

    tokens: Annotated[
        list[Annotated[int, Field(ge=0, le=int(TOKEN_ID.high), json_schema_extra=range_schema(TOKEN_ID))]],
        Field(fail_fast=True),
    ]


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


def tokenization_router(
    tokenizers: TokenizerGateway, principal_of: PrincipalOf, metering: Metering, limits: PromptLimits
) -> APIRouter:
    """Give the routes that tell of tokens, for those who may generate: what is cut counts as what a model reads.

    What takes its time, because a text is long, is done beside the event loop, on which everybody's streams are.
    """
    router = APIRouter(tags=["tokens"])

    @router.post(
        "/tokenize",
        summary="Cut a text into tokens",
        responses={200: {"model": TokenizeAnswer, "description": "The tokens"}, **error_answers(*_REFUSALS)},
        openapi_extra=request_body(TokenizeRequest),
    )
    async def tokenize(request: Request) -> Response:
        principal = await principal_of(request)
        principal.require(GENERATE)
        expect_json(request.headers.get("content-type"))
        asked, text = await read_body(request, partial(_read_text, root=model_root_of(request.scope)))
        most_tokens = utf8_length(text) if isinstance(text, str) else text.most_tokens
        request_id = request_id_of(request.scope)
        async with admitted(metering, principal, request.scope, most_tokens) as reservation:
            tokens = await tokenizers.tokenize(text, asked.model, request_id)
            reservation.count_read(len(tokens.ids))
            card = await tokenizers.tokenizer(tokens.model, request_id)
            forms = {"pieces": bool(asked.with_pieces), "strings": bool(asked.return_token_strs)}
            answer = await asyncio.to_thread(write_tokens, tokens, _longest(card, limits), **forms)
        return WholeAnswer(answer, _FRESH)

    @router.post(
        "/detokenize",
        summary="Put tokens together",
        responses={200: {"model": DetokenizeAnswer, "description": "Their text"}, **error_answers(*_REFUSALS)},
        openapi_extra=request_body(DetokenizeRequest),
    )
    async def detokenize(request: Request) -> Response:
        principal = await principal_of(request)
        principal.require(GENERATE)
        expect_json(request.headers.get("content-type"))
        asked = await read_body(request, partial(DetokenizeRequest.read, root=model_root_of(request.scope)))
        if len(asked.tokens) > _MAX_LENGTH:
            raise InvalidRequest(_too_long("tokens", len(asked.tokens), "tokens"), field="tokens")
        async with admitted(metering, principal, request.scope, len(asked.tokens)) as reservation:
            text = await tokenizers.detokenize(asked.tokens, asked.model, request_id_of(request.scope))
            reservation.count_read(len(asked.tokens))
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
        model = model_under(model_root_of(request.scope), request.query_params.get("model"))
        card = await tokenizers.tokenizer(model, request_id_of(request.scope))
        return JSONResponse(_info(card, limits), headers=_FRESH)

    return router


def _read_text(body: bytes, root: str | None) -> tuple[TokenizeRequest, str | Conversation]:
    asked = TokenizeRequest.read(body, root)
    return asked, asked.text()


def _too_long(name: str, length: int, unit: str) -> str:
    return f"{name} has {length} {unit} and may have at most {_MAX_LENGTH}. Send it in parts."


def _longest(card: TokenizerCard, limits: PromptLimits) -> int:
    """Give how many tokens are read, by us and by the model service."""
    return min(card.max_prompt_tokens, limits.tokens)


def _info(card: TokenizerCard, limits: PromptLimits) -> TokenizerInfo:
    return TokenizerInfo(
        model=card.model,
        tokenizer_class=card.kind,
        vocab_size=card.vocab_size,
        model_max_length=_longest(card, limits),
        bos_token=card.bos_token,
        eos_token=card.eos_token,
        pad_token=None,
        unk_token=None,
        additional_special_tokens=sorted(card.special_tokens),
        chat_template=card.chat_template,
    )
