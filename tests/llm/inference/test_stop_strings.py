"""Stop strings, in whatever pieces the text comes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.llm.inference.stop_strings import StopMatcher

# Two letters make overlaps, repetitions and prefixes of each other likely.
stops_strategy = st.lists(st.text("ab", min_size=1, max_size=5), max_size=4)
pieces_strategy = st.lists(st.text("ab", max_size=4), max_size=12)


def cut(text: str, stops: list[str]) -> str:
    """The law, by definition."""
    return text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]


@given(stops_strategy, pieces_strategy)
@settings(max_examples=500)
def test_text_ends_where_the_earliest_stop_string_begins(stops, pieces):
    """Pushes and flush joined are the whole text up to the first stop string, however it is cut."""
    matcher = StopMatcher(stops)
    text = "".join(pieces)
    assert "".join(matcher.push(piece) for piece in pieces) + matcher.flush() == cut(text, stops)
    assert matcher.stopped == any(stop in text for stop in stops)


@given(stops_strategy, pieces_strategy)
def test_text_is_held_back_only_while_a_stop_string_may_be_beginning(stops, pieces):
    """What is out is never more than the cut text, and lags behind by less than the longest stop string."""
    matcher, seen, out = StopMatcher(stops), "", ""
    for piece in pieces:
        seen, out = seen + piece, out + matcher.push(piece)
        assert cut(seen, stops).startswith(out)
        if not any(stop in seen for stop in stops):
            assert len(seen) - len(out) < max(map(len, stops), default=1)


def test_nothing_comes_out_after_the_stop():
    """A matcher that has stopped stays silent."""
    matcher = StopMatcher(["\n\n"])
    assert matcher.push("one\n\ntwo") == "one"
    assert matcher.stopped
    assert matcher.push("three") == matcher.flush() == ""


def test_a_longer_stop_string_that_began_earlier_is_waited_for():
    """'b' is found first, but 'abc' would begin before it: the text's next character decides."""
    matcher = StopMatcher(["abc", "b"])
    assert matcher.push("xab") == "x"
    assert not matcher.stopped
    assert matcher.push("c") == ""
    assert matcher.stopped
    matcher = StopMatcher(["abc", "b"])
    assert matcher.push("xab") + matcher.push("d") == "xa"


@pytest.mark.parametrize("length", [200_000])
def test_a_long_repetitive_stop_string_is_read_in_linear_time(length):
    """A client cannot stall the engine with a pattern that almost matches everywhere."""
    matcher = StopMatcher(["a" * length + "b"])
    text = "a" * (2 * length)
    assert matcher.push(text) + matcher.flush() == text
