"""A session's life; its written form is held by tests/contract."""

from hypothesis import given
from hypothesis import strategies as st

from functions.frontend.session import LIFETIME_S, Session, SessionSeal

SEAL = SessionSeal(["a secret of at least 32 characters, this one"])
BEGIN = 1_800_000_000


def test_what_is_written_is_read():
    """By the one who wrote it, until it ends, and as much later as is allowed."""
    session = Session.begin(BEGIN + 0.9)
    cookie = SEAL.write(session)
    assert SEAL.read(cookie, BEGIN) == SEAL.read(cookie, BEGIN + LIFETIME_S - 0.1) == session
    assert SEAL.read(cookie, BEGIN + LIFETIME_S) is None
    assert SEAL.read(cookie, BEGIN + LIFETIME_S + 9, late_s=10) == session
    assert SEAL.read(cookie, BEGIN + LIFETIME_S + 10, late_s=10) is None


def test_every_visitor_is_another_one():
    """16 random bytes each."""
    assert len({Session.begin(BEGIN).sid for _ in range(50)}) == 50
    assert len(Session.begin(BEGIN).sid) == 22


def test_a_session_is_made_longer_once_half_of_it_is_over():
    """It stays the same visitor's; before that it stays as it is, so that not every page load writes a cookie."""
    session = Session.begin(BEGIN)
    assert session.renewed(BEGIN + LIFETIME_S / 2) is session
    later = session.renewed(BEGIN + LIFETIME_S / 2 + 1)
    assert later == Session(session.sid, BEGIN + LIFETIME_S // 2 + 1, BEGIN + LIFETIME_S // 2 + 1 + LIFETIME_S)


@given(st.text())
def test_nothing_else_is_read(text):
    """Whatever a client sends is no session, and no failure."""
    assert SEAL.read(text, BEGIN) is None
    assert SEAL.read(f"v1.{text}.{text}", BEGIN) is None
