"""A session's life; its written form is held by tests/contract."""

from hypothesis import given
from hypothesis import strategies as st

from functions.frontend.session import LIFETIME_S, LONGEST_S, Session, SessionSeal

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
    then = BEGIN + LIFETIME_S // 2 + 1
    assert later == Session(session.sid, then, then + LIFETIME_S, BEGIN)


def test_a_session_lasts_no_longer_than_a_day_however_often_it_is_renewed():
    """Nor does what was stolen of it; neither the page nor the API takes it then."""
    session, now = Session.begin(BEGIN), BEGIN
    while read := SEAL.read(SEAL.write(session), now, late_s=3600):
        session, now = read.renewed(now), now + 600
        assert session.exp <= BEGIN + LONGEST_S
    assert now == BEGIN + LONGEST_S


def test_a_password_ends_with_its_sessions():
    """Those that another one began are not read, nor those of the time when there was none."""
    session, first, second = Session.begin(BEGIN), "x" * 32, "y" * 32
    seals = [SessionSeal([first], password) for password in ("", "one password", "another")]
    assert [[seal.read(made.write(session), BEGIN) for seal in seals] for made in seals] == [
        [session, None, None], [None, session, None], [None, None, session]
    ]  # fmt: skip
    replaced = SessionSeal([second, first], "one password")
    assert replaced.read(seals[1].write(session), BEGIN) == session


@given(st.text())
def test_nothing_else_is_read(text):
    """Whatever a client sends is no session, and no failure."""
    assert SEAL.read(text, BEGIN) is None
    assert SEAL.read(f"v1.{text}.{text}", BEGIN) is None
