"""The parser gives the same frames however the stream is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.backend.adapters.event_stream import EventStreamError, EventStreamParser, Frame

# What a field can hold: anything but line breaks. Surrogates are no UTF-8.
values = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)
# A carriage return and a line feed of two different lines would be one line end, so the two are not mixed.
line_ends = st.sampled_from([["\n"], ["\r"], ["\r\n"], ["\n", "\r\n"]])
noise = st.lists(st.sampled_from([": a comment", ":", "id: 7", "retry: 100", "color: red", "data"[:2]]), max_size=2)


@st.composite
def streams(draw):
    """Give the bytes of a stream, and the frames that were written into it."""
    end = st.sampled_from(draw(line_ends))
    frames, lines = [], [draw(st.sampled_from(["", "\ufeff"]))]
    for event, data in draw(st.lists(st.tuples(st.just("") | values, st.lists(values, max_size=3)), max_size=4)):
        # An event of no name is not named in the stream, and is called "message" by the standard.
        fields = [f"event: {event}"] if event else []
        fields += [f"data: {line}" if draw(st.booleans()) or line.startswith(" ") else f"data:{line}" for line in data]
        for line in fields:
            lines += [text + draw(end) for text in [*draw(noise), line]]
        lines.append(draw(end))
        if data:
            frames.append(Frame(event or "message", "\n".join(data)))
    return "".join(lines).encode(), frames


def cuts_of(data, stream):
    """Give the stream in pieces, cut anywhere, empty pieces included."""
    places = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=len(stream))))
    return [stream[begin:end] for begin, end in zip([0, *places], [*places, len(stream)], strict=True)]


def parse(chunks, **limits):
    """Give the frames, and after them the error if there was one."""
    parser, told = EventStreamParser(**limits), []
    try:
        for chunk in chunks:
            told.extend(parser.push(chunk))
    except EventStreamError as error:
        told.append(str(error))
    return told


@given(streams(), st.data())
def test_what_was_written_is_read_however_it_is_cut(written, data):
    """Every frame comes out, whatever the line ends, comments, unknown fields, and pieces."""
    stream, frames = written
    assert parse(cuts_of(data, stream)) == frames


@given(st.lists(st.sampled_from([b"data", b":", b" ", b"\r", b"\n", b"x", b"\xc3", b"\xa9", b"event"])), st.data())
def test_cuts_never_matter_even_for_garbage(pieces, data):
    """Frames and faults come in the same order from the pieces as from the whole."""
    stream = b"".join(pieces)
    assert parse(cuts_of(data, stream), max_event_bytes=16) == parse([stream], max_event_bytes=16)


def test_a_frame_is_given_with_the_byte_that_ends_it():
    """A carriage return ends a line at once: waiting for a line feed that may not come would hold a token back."""
    parser = EventStreamParser()
    assert list(parser.push(b"data: a\r")) == []
    assert list(parser.push(b"\r")) == [Frame("message", "a")]
    assert list(parser.push(b"\ndata: b\n\n")) == [Frame("message", "b")]


def test_an_event_without_its_blank_line_is_not_an_event():
    """What a broken connection leaves behind is dropped, as the standard says."""
    assert parse([b"data: whole\n\ndata: half\n"]) == [Frame("message", "whole")]


@pytest.mark.parametrize("line", [b"data: " + b"x" * 100, b"data: 0123456789\n" * 10, b"x" * 100])
def test_memory_is_bounded(line):
    """A line or an event without end is refused long before it fills the memory."""
    assert parse([line] * 2, max_event_bytes=64) == ["an event of more than 64 bytes"]


def test_comments_may_go_on_for_ever():
    """Keep-alive comments between two events are no event, however many."""
    assert parse([b": ping\n"] * 100 + [b"data: a\n\n"], max_event_bytes=64) == [Frame("message", "a")]


def test_what_is_not_utf8_is_refused():
    """A wrong text is worse than none."""
    [fault] = parse([b"data: \xff\n\n"])
    assert "UTF-8" in fault


ODD_LINES = [
    "event: token",
    "event:token",
    "event: ",
    "event:  two",
    "event: done",
    "\ufeffevent: token",
    "data: x",
    "data:x",
    "data",
    "data:",
    "dato: x",
    'data: {"text":"é"}',
    "id: 7",
    "retry: 1",
    ": comment",
    "",
    "",
]
odd_lines = st.lists(st.sampled_from(ODD_LINES), max_size=12)


@given(odd_lines)
def test_whole_events_are_read_as_single_bytes_are(lines):
    """The short way for what the model service writes gives what the standard's way gives, for whatever else comes."""
    stream = ("\n".join(lines) + "\n\n").encode()
    whole, by_bytes = EventStreamParser(), EventStreamParser()
    one_by_one = [frame for byte in stream for frame in by_bytes.push(bytes([byte]))]
    assert list(whole.push(stream)) == one_by_one
    # And what follows is not read otherwise for it.
    assert list(whole.push(b"event: a\ndata: b\n\n")) == [
        frame for byte in b"event: a\ndata: b\n\n" for frame in by_bytes.push(bytes([byte]))
    ]
