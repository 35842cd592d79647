"""A key's text is drawn evenly from all there are, and what is kept of it tells nothing of it."""

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.backend.domain.key import Key, digest_of, id_of, matches, mint

random_bytes = st.binary(min_size=38, max_size=38)


@given(random_bytes)
def test_a_minted_key_is_read_back(random):
    """Its id stands in its text, and only this text is the one of its digest."""
    key_id, text = mint(random)
    assert re.fullmatch(r"hgn_[0-9A-Za-z]{8}_[0-9A-Za-z]{43}", text)
    assert id_of(text) == key_id == text.split("_")[1]
    assert digest_of(text) == hashlib.sha256(text.encode()).digest()
    assert matches(text, digest_of(text))
    assert not matches(text[:-1], digest_of(text))


@given(random_bytes, random_bytes)
def test_no_two_secrets_are_written_alike(one, other):
    """All 256 bits are in the text."""
    same = mint(one)[1].split("_")[2] == mint(other)[1].split("_")[2]
    assert same == (one[:32] == other[:32])


@pytest.mark.parametrize("text", ["", "hgn_", "hgn_abcd1234_short", "sk-" + "a" * 60, "hgn_abcd123é_" + "a" * 43])
def test_what_is_no_key_has_no_id(text):
    """Nobody is looked up for it."""
    assert id_of(text) is None


@pytest.mark.parametrize("length", [0, 37, 39])
def test_a_key_is_made_of_enough_randomness(length):
    """Neither less nor more than it holds."""
    with pytest.raises(ValueError, match="random bytes"):
        mint(bytes(length))


@pytest.mark.parametrize(
    ("name", "scopes", "said"),
    [("", {"generate"}, "name"), ("a\nb", {"generate"}, "name"), ("a", set(), "none"), ("a", {"fly"}, "fly")],
)
def test_a_key_that_would_be_nobody_s_is_refused(name, scopes, said):
    """Or that could do nothing, or nothing we know."""
    with pytest.raises(ValueError, match=said):
        Key("abcd1234", name, bytes(32), frozenset(scopes), 0.0)


def test_a_key_is_good_until_its_end():
    """Not at it, and not once it is revoked."""
    key = Key("abcd1234", "a", bytes(32), frozenset({"generate"}), 0.0, expires=10.0)
    assert key.is_good(9.9)
    assert not key.is_good(10.0)
    assert not Key("abcd1234", "a", bytes(32), frozenset({"generate"}), 0.0, revoked=1.0).is_good(0.5)
