"""What POST /v1/chat/completions answers: whole, or in chunks."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from functions.backend.controllers.openai.heading import Heading
from functions.backend.controllers.openai.placed_tokens import PlacedTokens
from functions.backend.controllers.openai.token_text import token_bytes, token_string
from functions.backend.controllers.openai.tool_calls import ToolCall, ToolCallReader
from functions.backend.controllers.openai.usage import OpenAIUsage, openai_usage
from functions.backend.controllers.written_list import WrittenList
from functions.backend.domain.events import Done, Event, Token, Usage

FinishReason = Literal["stop", "length", "tool_calls"]

# Made once: json.dumps with options makes an encoder at every call.
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class TopLogprob(TypedDict):
    """A token that might have stood here."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """A token, and what might have stood in its place, likeliest first."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(TypedDict):
    """Of each token of the answer's text; those of what ended it, a stop string or a mark, are not there."""

    content: list[TokenLogprob]
    refusal: None


class CalledFunction(TypedDict):
    """Which function, with which arguments (JSON)."""

    name: str
    arguments: str


class ChatToolCall(TypedDict):
    """A call that the model asks for."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class ChatMessage(TypedDict):
    """The answer; `content` is null where it only calls functions."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: NotRequired[list[ChatToolCall]]


class ChatChoice(TypedDict):
    """One answer."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class OpenAIChatCompletion(TypedDict):
    """The answers; `usage` counts the conversation once, and all answers."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: OpenAIUsage


class ChatToolCallPiece(ChatToolCall):
    """A call; they come whole."""

    index: int


class ChatDelta(TypedDict):
    """What is new of an answer: of its first chunk the role, of its last one nothing."""

    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str]
    refusal: NotRequired[None]
    tool_calls: NotRequired[list[ChatToolCallPiece]]


class ChatChunkChoice(TypedDict):
    """A piece of one answer; `finish_reason` is null until its last piece."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class OpenAIChatChunk(TypedDict):
    """Pieces of answers, or, where it was asked for, the `usage` of all that were told; until then that is null."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: NotRequired[OpenAIUsage | None]


class ChatText:
    """One of the whole answers, as it comes."""

    def __init__(self, *, with_logprobs: bool) -> None:
        self._texts: list[str] = []
        self._placed = PlacedTokens()
        self._logprobs = WrittenList() if with_logprobs else None

    def take(self, token: Token) -> None:
        """Keep what is told of a token."""
        self._texts.append(token.text)
        if self._logprobs is not None:
            self._logprobs.add(*chat_logprobs(self._placed.push(token))["content"])

    def choice(self, heading: Heading, index: int, done: Done, names: frozenset[str]) -> Iterator[bytes | bytearray]:
        """Give the ChatChoice as JSON, in pieces; `names` are the functions that it may call."""
        reader = ToolCallReader(names)
        said = [*reader.push("".join(self._texts)), *reader.flush()]
        calls = [
            ChatToolCall(id=_call_id(heading, index, place), type="function", function=_function(call))
            for place, call in enumerate(part for part in said if isinstance(part, ToolCall))
        ]
        content = "".join(part for part in said if isinstance(part, str))
        message = ChatMessage(role="assistant", content=content if content or not calls else None, refusal=None)
        if calls:
            message["tool_calls"] = calls
        yield f'{{"index":{index},"message":{_to_json(message)},"logprobs":'.encode()
        if self._logprobs is None:
            yield b"null"
        else:
            yield b'{"content":'
            yield from self._logprobs.pieces()
            yield b',"refusal":null}'
        yield f',"finish_reason":"{_reason(done, called=bool(calls))}"}}'.encode()


def chat_answer(
    heading: Heading, texts: Sequence[ChatText], ends: Sequence[Done], names: frozenset[str]
) -> Iterator[bytes | bytearray]:
    """Give an OpenAIChatCompletion as JSON, in pieces; `names` are the functions that the answers may call."""
    head = {"id": heading.id, "object": "chat.completion", "created": heading.created, "model": heading.model}
    yield f'{_to_json(head)[:-1]},"choices":['.encode()
    for index, (text, done) in enumerate(zip(texts, ends, strict=True)):
        if index:
            yield b","
        yield from text.choice(heading, index, done, names)
    yield f'],"usage":{_to_json(openai_usage((done.usage for done in ends), len(ends)))}}}'.encode()


def chat_logprobs(tokens: Iterable[tuple[Token, int]]) -> ChatLogprobs:
    """Give what the model thought of tokens, each with the place where it begins."""
    return ChatLogprobs(content=[_token_logprob(token) for token, _ in tokens], refusal=None)


def _token_logprob(token: Token) -> TokenLogprob:
    logprobs = token.logprobs
    assert logprobs is not None
    assert logprobs.token is not None, "the first token of all is the prompt's"
    own = _top_logprob(token.text, logprobs.raw, logprobs.token)
    top = [_top_logprob(other.text, other.raw, other.logprob) for other in logprobs.top]
    return TokenLogprob(**own, top_logprobs=top)


def _top_logprob(text: str, raw: bytes | None, logprob: float) -> TopLogprob:
    return TopLogprob(token=token_string(text, raw), logprob=logprob, bytes=list(token_bytes(text, raw)))


class ChatChunks:
    """Writes the events of the answers as chunks, each the data of one server-sent event."""

    def __init__(self, heading: Heading, *, with_logprobs: bool, with_usage: bool, names: frozenset[str]) -> None:
        self._heading = heading
        head = {"id": heading.id, "object": "chat.completion.chunk", "created": heading.created, "model": heading.model}
        # Made once: every token of every stream comes by here.
        self._head = _to_json(head)[:-1]
        self._with_logprobs = with_logprobs
        self._with_usage = with_usage
        self._usage = ',"usage":null' if with_usage else ""
        self._names = names
        self._answers: dict[int, _Answer] = {}
        self._usages: dict[int, Usage] = {}

    def write(self, index: int, event: Event) -> Sequence[str]:
        """Give the chunks that tell an event of an answer; the first of all says who speaks, and no more."""
        answer = self._answers.get(index)
        begin: tuple[str, ...] = ()
        if answer is None:
            answer = self._answers[index] = _Answer(ToolCallReader(self._names))
            begin = (self._chunk(index, {"role": "assistant", "content": "", "refusal": None}, "null", "null"),)
        if isinstance(event, Token):
            delta = self._delta(index, answer, answer.reader.push(event.text))
            placed = answer.placed.push(event) if self._with_logprobs else ()
            if not (delta or placed):
                return begin
            logprobs = _to_json(chat_logprobs(placed)) if placed else "null"
            return (*begin, self._chunk(index, delta, logprobs, "null"))
        assert isinstance(event, Done)
        self._usages[index] = event.usage
        delta = self._delta(index, answer, answer.reader.flush())
        end = (self._chunk(index, delta, "null", "null"),) if delta else ()
        reason = f'"{_reason(event, called=answer.calls > 0)}"'
        return (*begin, *end, self._chunk(index, {}, "null", reason))

    def end(self) -> Sequence[str]:
        """Give the chunk after the last of the answers, if there is one."""
        if not self._with_usage:
            return ()
        usage = openai_usage([usage for _, usage in sorted(self._usages.items())], len(self._usages))
        return (f'{self._head},"choices":[],"usage":{_to_json(usage)}}}',)

    def _delta(self, index: int, answer: "_Answer", said: Iterable[str | ToolCall]) -> dict[str, Any]:
        content, calls = "", []
        for part in said:
            if isinstance(part, str):
                content += part
                continue
            call = ChatToolCall(
                id=_call_id(self._heading, index, answer.calls), type="function", function=_function(part)
            )
            calls.append({"index": answer.calls, **call})
            answer.calls += 1
        return ({"content": content} if content else {}) | ({"tool_calls": calls} if calls else {})

    def _chunk(self, index: int, delta: dict[str, Any], logprobs: str, reason: str) -> str:
        return (
            f'{self._head},"choices":[{{"index":{index},"delta":{_to_json(delta)},'
            f'"logprobs":{logprobs},"finish_reason":{reason}}}]{self._usage}}}'
        )


class _Answer:
    """How far one of the answers is."""

    def __init__(self, reader: ToolCallReader) -> None:
        self.reader = reader
        self.placed = PlacedTokens()
        self.calls = 0


def _function(call: ToolCall) -> CalledFunction:
    return CalledFunction(name=call.name, arguments=call.arguments)


def _call_id(heading: Heading, index: int, place: int) -> str:
    return f"call_{heading.id.removeprefix('chatcmpl-')}_{index}_{place}"


def _reason(done: Done, *, called: bool) -> FinishReason:
    if called and done.finish_reason == "stop":
        return "tool_calls"
    return "stop" if done.finish_reason == "stop" else "length"
