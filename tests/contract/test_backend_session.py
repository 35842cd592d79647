"""The backend reads the page's session as the page writes it."""

import json
from pathlib import Path

import pytest

from functions.backend.domain.session import read_session

GOLDEN = Path(__file__).parent / "golden"
CASES = json.loads((GOLDEN / "session_read.json").read_text("utf-8"))


def test_the_golden_cookie_is_its_session():
    """While it lasts."""
    golden = json.loads((GOLDEN / "session_signed.json").read_text("utf-8"))
    session = golden["session"]
    assert read_session(golden["cookie"], [golden["secret"]], session["iat"]) == session["sid"]
    assert read_session(golden["cookie"], [golden["secret"]], session["iat"] - 3600) is None


@pytest.mark.parametrize("case", CASES, ids=[case["why"] for case in CASES])
def test_a_session_is_read_as_the_page_reads_it(case):
    """Whatever comes in a cookie."""
    found = read_session(case["cookie"], case["secret"].split(","), case["now"])
    assert found == (case["session"] and case["session"]["sid"])


def test_what_is_signed_and_no_session_is_none():
    """Somebody with our secret may write another thing some day."""
    from functions.backend.domain import session as module

    secret = CASES[0]["secret"]
    for payload in ("bm8", "W10", "eyJzaWQiOjF9", "e30", "!!!"):
        cookie = f"v1.{payload}.{module._mac(secret, payload)}"
        assert read_session(cookie, [secret], 1_800_000_001) is None
