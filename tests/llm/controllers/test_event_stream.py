"""A frame is what the standard library's JSON says of the event, whatever its text holds."""

import json

from hypothesis import given
from hypothesis import strategies as st

from functions.llm.controllers.event_stream import EventStream, token_json
from functions.llm.inference.generation import Alternative, Done, Scores, Token

# No half of a surrogate pair: what a decoder gives can be encoded again.
texts = st.text(st.characters(exclude_categories=["Cs"]))
logprobs = st.floats(allow_nan=False, allow_infinity=False)
alternatives = st.builds(Alternative, st.integers(0, 2**31 - 1), texts, logprobs)
scores = st.none() | st.builds(Scores, st.none() | logprobs, st.lists(alternatives, max_size=3).map(tuple))
tokens = st.builds(Token, st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1), texts, scores)


@given(st.lists(tokens))
def test_token_frames_are_plain_json(events):
    """Written out by hand for speed, a frame has the same fields as token_json, one line of them."""
    frames = EventStream().encode(events).decode().split("\n\n")
    assert frames.pop() == ""
    for frame, event in zip(frames, events, strict=True):
        name, _, data = frame.partition("\n")
        assert name == "event: token"
        assert data == "data: " + json.dumps(token_json(event), ensure_ascii=False, separators=(",", ":"))


def test_the_end_follows_its_tokens():
    """In one write, in order."""
    encoded = EventStream().encode([Token(0, 1, 'é"\n'), Done("length", 1, 1, 42, "muninn-char")]).decode()
    assert encoded.startswith('event: token\ndata: {"i":0,"id":1,"text":"é\\"\\n"}\n\nevent: done\ndata: {')
    assert encoded.endswith('"seed":42,"model":"muninn-char"}\n\n')
