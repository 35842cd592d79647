"""The models' tokenizers, asked where the models are."""

import asyncio
import json
from collections.abc import Sequence
from typing import Annotated, TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from functions.backend.adapters.http_llm_gateway import HTTPLLMGateway
from functions.backend.adapters.llm_wire import write_prompt
from functions.backend.domain.conversation import Conversation
from functions.backend.domain.errors import LLMMisbehaved
from functions.backend.domain.tokenizer_card import TokenizerCard, Tokens

# A body of 1 MB may hold a million tokens, and each takes some characters in the answer.
_MAX_ANSWER_BYTES = 16 << 20


class HTTPTokenizerGateway:
    """Asks the llm function; see the port."""

    def __init__(self, llm: HTTPLLMGateway) -> None:
        self._llm = llm

    async def tokenize(self, text: str | Conversation, model: str | None, request_id: str) -> Tokens:
        """Give the tokens of a text; see the port."""
        prompt = text if isinstance(text, str) else write_prompt(text)
        # Beside the event loop: a long text has many tokens.
        return await asyncio.to_thread(_tokens, await self._post("/tokenize", {"prompt": prompt}, model, request_id))

    async def detokenize(self, ids: Sequence[int], model: str | None, request_id: str) -> str:
        """Give the text of tokens; see the port."""
        return _read(_Text, await self._post("/detokenize", {"tokens": list(ids)}, model, request_id)).text

    async def tokenizer(self, model: str | None, request_id: str) -> TokenizerCard:
        """Tell what is known of a model's tokens; see the port."""
        query = "" if model is None else f"?{urlencode({'model': model})}"
        answer = _read(_Tokenizer, await self._llm.fetch("GET", f"/tokenizer_info{query}", request_id))
        return TokenizerCard(**dict(answer))

    async def _post(self, path: str, body: dict[str, object], model: str | None, request_id: str) -> bytes:
        if model is not None:
            body = {**body, "model": model}
        content = json.dumps(body, ensure_ascii=False, allow_nan=False, default=dict).encode()
        return await self._llm.fetch("POST", path, request_id, content, _MAX_ANSWER_BYTES)


class _Wire(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Tokens(_Wire):
    model: str
    tokens: tuple[int, ...]
    pieces: tuple[Annotated[str, Field(pattern=r"^([0-9a-f]{2})*$")], ...]


class _Text(_Wire):
    text: str


class _Tokenizer(_Wire):
    model: str
    kind: str
    vocab_size: int
    max_prompt_tokens: int
    bos_token: str | None
    eos_token: str | None
    special_tokens: dict[str, int]
    chat_template: str


Wire = TypeVar("Wire", bound=_Wire)


def _tokens(body: bytes) -> Tokens:
    answer = _read(_Tokens, body)
    return Tokens(answer.model, answer.tokens, tuple(bytes.fromhex(piece) for piece in answer.pieces))


def _read(kind: type[Wire], body: bytes) -> Wire:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise LLMMisbehaved(
            f"The model service told of tokens in a way we cannot read: {where}: {first['msg']}."
        ) from error
