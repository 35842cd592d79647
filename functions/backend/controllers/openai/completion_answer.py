"""What POST /v1/completions answers: whole, or in chunks."""

import json
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NotRequired, cast

from typing_extensions import TypedDict

from functions.backend.controllers.openai.heading import Heading
from functions.backend.controllers.openai.placed_tokens import PlacedTokens
from functions.backend.controllers.openai.token_text import alternatives_of, token_string
from functions.backend.controllers.openai.usage import OpenAIUsage, openai_usage
from functions.backend.controllers.written_list import WrittenList
from functions.backend.domain.events import Done, Event, Logprobs, Token, Usage

FinishReason = Literal["stop", "length"]

# Made once: json.dumps with options makes an encoder at every call.
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class CompletionLogprobs(TypedDict):
    """One element a token in each list. Of a text's very first token, which nothing foresaw, both scores are null.

    `text_offset` is where a token begins in the text of the choice, in characters; one that is not in it (of a stop
    string, a mark) has its end or what is behind it. In `top_logprobs` the chosen token is always there, at the end
    where it is not one of the likeliest. A part of a character is named by its bytes, and stands where its character
    does. Of an echo, `tokens` are what the model read: for a character that it does not know, another one.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(TypedDict):
    """One text, or one piece of it; `finish_reason` is null until its last piece."""

    text: str
    index: int
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason | None


class OpenAICompletion(TypedDict):
    """The texts, prompt by prompt; `usage` counts each prompt once, and all texts that were made."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: OpenAIUsage


class OpenAICompletionChunk(TypedDict):
    """Pieces of texts, or, where it was asked for, the `usage` of all that were told; until then that is null."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: NotRequired[OpenAIUsage | None]


class CompletionText:
    """One of the whole texts, as it comes.

    Args:
        with_logprobs: whether the client wants log-probabilities.
        shows_new: whether it wants what the model wrote; without it, only the prompt's echo is shown.
        ranked: whether the text is compared with others.
    """

    def __init__(self, *, with_logprobs: bool, shows_new: bool, ranked: bool) -> None:
        self._texts: list[str] = []
        self._placed = PlacedTokens()
        self._columns: Mapping[str, WrittenList] | None = None
        if with_logprobs:
            self._columns = {name: WrittenList() for name in CompletionLogprobs.__annotations__}
        self._shows_new = shows_new
        self._kept: Token | None = None
        self._ranked = ranked
        self._scores = array("d")
        self._positions = array("q")  # of the tokens that have a score

    def take(self, token: Token) -> None:
        """Keep what is told of a token."""
        if self._ranked and token.logprobs is not None and token.logprobs.token is not None:
            self._scores.append(token.logprobs.token)
            self._positions.append(token.position)
        if self._shows_new:
            self._show(token)
            return
        # The last token is one that the client did not want, and which it is shows only when no other follows.
        if self._kept is not None:
            self._show(self._kept)
        self._kept = token

    def mean_logprob(self, done: Done) -> float:
        """Give how likely the model finds what it chose, per token; needs tokens with log-probabilities."""
        generated = self._scores[bisect_left(self._positions, done.usage.prompt_tokens) :]
        return sum(generated) / len(generated) if generated else 0.0

    def choice(self, index: int, done: Done) -> Iterator[bytes | bytearray]:
        """Give the CompletionChoice as JSON, in pieces."""
        if self._kept is not None and self._kept.position < done.usage.prompt_tokens:
            self._show(self._kept)
            self._kept = None
        self._score(self._placed.rest())
        yield f'{{"text":{_to_json("".join(self._texts))},"index":{index},"logprobs":'.encode()
        if self._columns is None:
            yield b"null"
        else:
            begin = b"{"
            for name, column in self._columns.items():
                yield b'%b"%b":' % (begin, name.encode())
                yield from column.pieces()
                begin = b","
            yield b"}"
        yield f',"finish_reason":"{_reason(done, shows_new=self._shows_new)}"}}'.encode()

    def _show(self, token: Token) -> None:
        self._texts.append(token.text)
        if self._columns is not None:
            self._score(self._placed.push(token))

    def _score(self, tokens: Sequence[tuple[Token, int]]) -> None:
        if self._columns is not None and tokens:
            for name, told in completion_logprobs(tokens).items():
                self._columns[name].add(*cast("list[object]", told))


def completion_answer(
    heading: Heading, texts: Sequence[CompletionText], ends: Sequence[Done], *, made: int, given: int, shows_new: bool
) -> Iterator[bytes | bytearray]:
    """Give an OpenAICompletion as JSON, in pieces.

    Of every `made` texts in a row, which have one prompt, it has the `given` likeliest.

    Args:
        heading: of the answer.
        texts: in the order of the request.
        ends: theirs.
        made: texts of each prompt.
        given: texts of each prompt that the client wants.
        shows_new: whether it wants what the model wrote.
    """
    head = {"id": heading.id, "object": "text_completion", "created": heading.created, "model": heading.model}
    yield f'{_to_json(head)[:-1]},"choices":['.encode()
    shown = 0
    for start in range(0, len(texts), made):
        of_one_prompt = [(texts[place], ends[place]) for place in range(start, start + made)]
        if made > given:
            # sort() keeps the order of equals.
            of_one_prompt.sort(key=lambda both: -both[0].mean_logprob(both[1]))
        for text, done in of_one_prompt[:given]:
            if shown:
                yield b","
            yield from text.choice(shown, done)
            shown += 1
    usage = openai_usage((done.usage for done in ends), made, generated=shows_new)
    yield f'],"usage":{_to_json(usage)}}}'.encode()


def completion_logprobs(tokens: Iterable[tuple[Token, int]]) -> CompletionLogprobs:
    """Give what the model thought of tokens, each with the place where it begins."""
    said = CompletionLogprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
    for token, offset in tokens:
        logprobs = token.logprobs or Logprobs(None, ())
        said["tokens"].append(token_string(token.text, logprobs.raw))
        said["token_logprobs"].append(logprobs.token)
        said["top_logprobs"].append(_top(token, logprobs))
        said["text_offset"].append(offset)
    return said


def _top(token: Token, logprobs: Logprobs) -> dict[str, float] | None:
    if logprobs.token is None:
        return None
    top: dict[str, float] = {}
    for other in alternatives_of(token, logprobs):
        # Two tokens may be spelled alike; the likelier one came first, and keeps the name.
        top.setdefault(token_string(other.text, other.raw), other.logprob)
    return top


class CompletionChunks:
    """Writes the events of the texts as chunks, each the data of one server-sent event."""

    def __init__(self, heading: Heading, *, with_logprobs: bool, with_usage: bool, made: int, shows_new: bool) -> None:
        head = {"id": heading.id, "object": "text_completion", "created": heading.created, "model": heading.model}
        # Made once: every token of every stream comes by here.
        self._head = _to_json(head)[:-1]
        self._with_logprobs = with_logprobs
        self._with_usage = with_usage
        self._usage = ',"usage":null' if with_usage else ""
        self._made = made
        self._shows_new = shows_new
        self._placed: defaultdict[int, PlacedTokens] = defaultdict(PlacedTokens)
        self._kept: dict[int, Token] = {}
        self._usages: dict[int, Usage] = {}

    def write(self, index: int, event: Event) -> Sequence[str]:
        """Give the chunk that tells an event of a text; none where there is nothing to tell."""
        if isinstance(event, Token):
            if self._shows_new:
                return self._token(index, event)
            # The last token is one that the client did not want, and which it is shows only when no other follows.
            kept = self._kept.get(index)
            self._kept[index] = event
            return self._token(index, kept) if kept else ()
        assert isinstance(event, Done)
        self._usages[index] = event.usage
        behind = self._placed[index].rest()
        rest = (self._chunk("", index, _to_json(completion_logprobs(behind)), "null"),) if behind else ()
        return (*rest, self._chunk("", index, "null", f'"{_reason(event, shows_new=self._shows_new)}"'))

    def end(self) -> Sequence[str]:
        """Give the chunk after the last of the texts, if there is one."""
        if not self._with_usage:
            return ()
        usages = [usage for _, usage in sorted(self._usages.items())]
        usage = openai_usage(usages, self._made, generated=self._shows_new)
        return (f'{self._head},"choices":[],"usage":{_to_json(usage)}}}',)

    def _token(self, index: int, token: Token) -> Sequence[str]:
        # Tokens come with the text that they are, also where some of it was held back.
        placed = self._placed[index].push(token) if self._with_logprobs else ()
        if not (token.text or placed):
            return ()
        logprobs = _to_json(completion_logprobs(placed)) if placed else "null"
        return (self._chunk(token.text, index, logprobs, "null"),)

    def _chunk(self, text: str, index: int, logprobs: str, reason: str) -> str:
        return (
            f'{self._head},"choices":[{{"text":{_to_json(text)},"index":{index},'
            f'"logprobs":{logprobs},"finish_reason":{reason}}}]{self._usage}}}'
        )


def _reason(done: Done, *, shows_new: bool) -> FinishReason:
    return "stop" if done.finish_reason == "stop" and shows_new else "length"
