"""The page writes and reads the golden session cookies; the backend reads the same files."""

import json
from pathlib import Path

import pytest

from functions.frontend.session import LIFETIME_S, Session, SessionSeal

GOLDEN = Path(__file__).parent / "golden"
CASES = json.loads((GOLDEN / "session_read.json").read_text("utf-8"))


def test_a_session_is_written_as_the_golden_cookie():
    """Byte for byte."""
    golden = json.loads((GOLDEN / "session_signed.json").read_text("utf-8"))
    session = Session(**golden["session"])
    assert session.exp - session.iat == LIFETIME_S
    assert SessionSeal([golden["secret"]]).write(session) == golden["cookie"]


@pytest.mark.parametrize("case", CASES, ids=[case["why"] for case in CASES])
def test_a_cookie_is_read_as_the_golden_answer(case):
    """The session that it is, or none."""
    read = SessionSeal(case["secret"].split(","), case.get("password", "")).read(case["cookie"], case["now"])
    assert read == (Session(**case["session"]) if case["session"] else None)
