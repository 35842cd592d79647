"""Where tokens begin in the text, and which are in it: from the model service's tokens to OpenAI's two answers."""

import json
from pathlib import Path
from types import MappingProxyType

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.backend.adapters.event_stream import EventStreamParser
from functions.backend.adapters.llm_wire import read_event
from functions.backend.controllers.openai.chat_answer import ChatChunks, ChatText
from functions.backend.controllers.openai.completion_answer import CompletionChunks, CompletionText
from functions.backend.controllers.openai.heading import Heading
from functions.backend.controllers.openai.placed_tokens import PlacedTokens
from functions.backend.controllers.openai.token_text import token_string
from functions.llm.checkpoints.checkpoint import Checkpoint
from functions.llm.controllers.event_stream import EventStream
from functions.llm.inference.generation import Generation, GenerationRequest
from functions.llm.inference.programs import TokenBatch
from functions.llm.inference.sampling import SamplingOptions
from functions.llm.inference.served_model import ServedModel
from functions.llm.inference.transcript import Transcript
from functions.llm.tokenizers import StreamDecoder

# Texts and parts of characters, some of which fit; two letters make stop strings likely. The first one ends a text.
PARTS = b"\xc3 \xa9 \xe2 \x82 \xac \xe2\x82 \xf0\x9f \x90\xa6 \xac\xc3 \xa9b b\xe2 \xff"
PIECES = [*"<end> a b ab ba aab é \ufffd".encode().split(b" "), *PARTS.split(b" "), b""]
HEADING = Heading("cmpl-1", 7, "pieces")


class Pieces:
    """A tokenizer whose tokens are these pieces."""

    vocab_size, special_tokens, eos_id = len(PIECES), MappingProxyType({"<end>": 0}), 0

    def __init__(self, ids=()):
        self._ids = ids

    def encode(self, _text):
        """Whatever the text, these."""
        return self._ids

    def token_bytes(self, token_id):
        return PIECES[token_id]


ids = st.lists(st.integers(1, len(PIECES) - 1), min_size=1, max_size=8).map(tuple)
stops = st.lists(st.text("abé\ufffd", min_size=1, max_size=3), max_size=3).map(tuple)


def told(prompt, new, stop, *, echo, sent=None):
    """The events of a generation that draws these tokens, as the backend hears of them; `sent` is the prompt's text."""
    model = ServedModel(Checkpoint("pieces", None, Pieces(prompt), "0" * 64, 0, Path()), None)
    asked = GenerationRequest(sent or prompt, len(new), SamplingOptions(), seed=0, stop=stop, logprobs=0, echo=echo)
    transcript = Transcript(Generation(model, asked))

    def scored(token_ids):
        scores, none = np.full((1, len(token_ids)), -1.0), np.zeros((1, len(token_ids), 0))
        return TokenBatch(np.array([token_ids]), scores, none, none)

    events = [*transcript.begin(), *transcript.echo(1, len(prompt), scored(prompt[1:]))]
    events += transcript.generated(scored(new), 0, 0, len(new))
    return [read_event(frame) for frame in EventStreamParser().push(EventStream().encode(events))]


def places(prompt, shown_ids, *, echo):
    """Where the first byte of each of these tokens stands, by definition: in the character that it is a part of."""
    before = b"" if echo else pending(prompt)
    for token_id in shown_ids:
        yield len((before + PIECES[token_id][:1]).decode("utf-8", "replace")) - 1
        before += PIECES[token_id]


def pending(prompt):
    """The beginning of a character that a prompt ends with."""
    decoder = StreamDecoder(Pieces())
    for token_id in prompt:
        decoder.push(token_id)
    return decoder.pending


@given(ids, ids, st.booleans(), stops, st.booleans())
@settings(max_examples=200)
def test_a_token_stands_where_it_is_said_to_begin(prompt, new, ends, stop, echo):
    """Whole and in chunks, for any pieces, stop strings and ends; a chat's tokens are those of its text."""
    *tokens, done = told(prompt, (*new, 0) if ends else new, stop, echo=echo)
    text = "".join(token.text for token in tokens)
    names = [token_string(PIECES[token.id].decode("utf-8", "replace"), PIECES[token.id]) for token in tokens]

    answer = CompletionText(with_logprobs=True, shows_new=True, ranked=False)
    for token in tokens:
        answer.take(token)
    whole = json.loads(b"".join(answer.choice(0, done)))
    assert whole["text"] == text
    begin = whole["logprobs"]["text_offset"]
    expected = list(places(prompt, [token.id for token in tokens], echo=echo))
    # A token of nothing stands wherever the text is.
    assert all(
        not PIECES[token.id] or here == there for token, here, there in zip(tokens, begin, expected, strict=True)
    )
    assert whole["logprobs"]["tokens"] == names
    for name, offset in zip(names, begin, strict=True):
        if not name.startswith("bytes:"):
            # All of it, where it is all in the text.
            assert text[offset : offset + len(name)] == name[: max(0, len(text) - offset)]

    chunks = CompletionChunks(HEADING, with_logprobs=True, with_usage=False, made=1, shows_new=True)
    seen, columns = "", {name: [] for name in whole["logprobs"]}
    for event in [*tokens, done]:
        for chunk in chunks.write(0, event):
            [choice] = json.loads(chunk)["choices"]
            seen += choice["text"]
            for name, column in (choice["logprobs"] or {}).items():
                columns[name] += column
            assert event is done or all(offset < len(seen) for offset in columns["text_offset"])
    assert (seen, columns) == (text, whole["logprobs"])

    chat = ChatText(with_logprobs=True)
    for token in tokens:
        if token.position >= len(prompt):
            chat.take(token)
    said = json.loads(b"".join(chat.choice(HEADING, 0, done, frozenset())))
    if not echo:
        inside = [name for name, offset in zip(names, begin, strict=True) if offset < len(text)]
        assert [one["token"] for one in said["logprobs"]["content"]] == inside
    chunks = ChatChunks(HEADING, with_logprobs=True, with_usage=False, names=frozenset())
    told_in_chunks = [
        one
        for event in [*tokens, done]
        if event is done or event.position >= len(prompt)
        for chunk in chunks.write(0, event)
        for one in (json.loads(chunk)["choices"][0]["logprobs"] or {"content": []})["content"]
    ]
    assert told_in_chunks == said["logprobs"]["content"]


# Whole characters, one of them in two tokens: what tokenizers make of a text.
characters = st.sampled_from([(1,), (3,), (5,), (6,), (PIECES.index(b"\xc3"), PIECES.index(b"\xa9"))])
read_ids = st.lists(characters, min_size=1, max_size=8).map(lambda read: sum(read, ()))


@given(st.text("abé\u6f22", min_size=1, max_size=12), read_ids, ids)
def test_a_text_is_echoed_as_it_was_sent(sent, prompt, new):
    """Whatever the tokenizer made of it; what follows stands behind it."""
    *tokens, _ = told(prompt, new, (), echo=True, sent=sent)
    *alone, _ = told(prompt, new, (), echo=False)
    echoed, generated = tokens[: len(prompt)], tokens[len(prompt) :]
    assert "".join(token.text for token in echoed) == sent
    assert [token.text for token in generated] == [token.text for token in alone]
    begin = [offset for _, offset in placed(tokens)]
    assert begin == sorted(begin)
    assert all(offset <= len(sent) for offset in begin[: len(prompt)])
    assert [offset - len(sent) for offset in begin[len(prompt) :]] == [offset for _, offset in placed(alone)]


def placed(tokens):
    places = PlacedTokens()
    return [one for token in tokens for one in places.push(token)] + list(places.rest())
