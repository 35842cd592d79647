"""Which form an Accept header chooses (the cases of RFC 9110, section 12.5.1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.backend.controllers.media_types import NotAcceptable, negotiate

OFFERS = ("text/plain", "text/event-stream")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "text/plain"),
        ("", "text/plain"),
        ("*/*", "text/plain"),
        ("text/*", "text/plain"),
        ("text/event-stream", "text/event-stream"),
        ("TEXT/Event-Stream; charset=utf-8", "text/event-stream"),
        ("text/event-stream, text/plain", "text/plain"),
        ("text/event-stream, */*;q=0.1", "text/event-stream"),
        ("text/plain;q=0.5, text/event-stream;q=0.8", "text/event-stream"),
        ("text/plain;q=0, */*", "text/event-stream"),
        ("text/*;q=0.2, text/plain;q=0.1", "text/event-stream"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/plain"),
        ("text/event-stream;q=nan, text/plain;q=0.001", "text/plain"),
        (", ,text/event-stream,", "text/event-stream"),
    ],
)
def test_the_best_allowed_offer_wins(accept, chosen):
    """The most specific range decides an offer's quality, and the earlier of equals is taken."""
    assert negotiate(accept, OFFERS) == chosen


@pytest.mark.parametrize(
    "accept", ["image/png", "text/plain;q=0, text/event-stream;q=0.0", "*/*;q=0", "text/plain;q=x"]
)
def test_nothing_allowed_is_refused(accept):
    """A header that allows no offer is answered with what there is."""
    with pytest.raises(NotAcceptable, match="text/plain or text/event-stream"):
        negotiate(accept, OFFERS)


@given(st.text(st.sampled_from("tex/plain*;,q=0.15 ")))
def test_any_header_gets_an_offer_or_a_refusal(accept):
    """No header crashes the negotiation."""
    try:
        assert negotiate(accept, OFFERS) in OFFERS
    except NotAcceptable:
        assert accept.strip()
