"""An account admits what its quota allows, in every window and place, and no more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.backend.domain.account import DAY_S, MINUTE_S, PLACE_S, RENEW_EVERY_S, Account, Place
from functions.backend.domain.errors import QuotaExceeded
from functions.backend.domain.quota import Quota

NOW = 20_000 * DAY_S + 10.0
EMPTY = Account()
PLACE_LASTS_S = 330.0


def admit(account, quota, tokens, now=NOW, name="a"):
    return account.admit(quota, Place.at(now, name, tokens, PLACE_LASTS_S), now)


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 80), st.integers(0, 200)), max_size=30),
    st.integers(50, 100),
    st.integers(1, 4),
)
def test_no_window_ever_holds_more_than_its_limit(requests, limit, concurrency):
    """Whatever is asked for, whenever: what was admitted in a minute is within the limit, and so are places."""
    quota = Quota(tokens_per_minute=limit, concurrency=concurrency)
    account, now, spent, running = EMPTY, NOW, {}, []
    for number, (tokens, used, later) in enumerate(requests):
        now += later / 10
        if running and used % 3 == 0:
            place, wanted = running.pop(0)
            account = account.settle(place, min(used, wanted))
            spent[place.minute] += min(used, wanted) - wanted
        place = Place.at(now, str(number), tokens, PLACE_LASTS_S)
        try:
            account = account.admit(quota, place, now)
        except QuotaExceeded:
            continue
        running.append((place, tokens))
        spent[place.minute] = spent.get(place.minute, 0) + tokens
        assert spent[place.minute] <= limit
        assert sum(place.until > now for place, _ in running) <= concurrency


def test_the_next_window_begins_with_all_of_it():
    """A minute's tokens are back in the next minute, a day's in the next day; the wait that is told is until then."""
    for quota, period in ((Quota(tokens_per_minute=10), MINUTE_S), (Quota(tokens_per_day=10), DAY_S)):
        account = admit(EMPTY, quota, 8).settle(Place.at(NOW, "a", 8, PLACE_LASTS_S), 8)
        with pytest.raises(QuotaExceeded, match="of the 10 of this") as refused:
            admit(account, quota, 3, name="b")
        wait = refused.value.retry_after_s
        assert 0 < wait == period - 10
        with pytest.raises(QuotaExceeded):
            admit(account, quota, 3, NOW + wait - 0.01, name="b")
        assert admit(account, quota, 10, NOW + wait, name="b").limits(quota, NOW + wait)[0].remaining == 0


def test_waiting_is_no_advice_for_more_than_the_limit_itself():
    """What would never be admitted is refused without a time to come back at, and says what helps."""
    with pytest.raises(QuotaExceeded, match=r"Send a shorter text or, .* max_tokens") as refused:
        admit(EMPTY, Quota(tokens_per_minute=10, concurrency=1), 11)
    assert refused.value.retry_after_s is None
    assert not refused.value.retryable


def test_what_was_not_needed_is_given_back_in_its_own_window():
    """In the same minute at once; in another nothing is, for that one never lost it."""
    quota, place = Quota(tokens_per_minute=100, tokens_per_day=100), Place.at(NOW, "a", 60, PLACE_LASTS_S)
    account = EMPTY.admit(quota, place, NOW)
    assert [limit.remaining for limit in account.settle(place, 10).limits(quota, NOW)] == [90, 90]
    later = NOW + MINUTE_S
    assert [limit.remaining for limit in account.at(later).settle(place, 10).limits(quota, later)] == [100, 90]


def test_a_place_is_settled_once():
    """Whatever a second settlement of it says, and also where it was given up: its tokens are back already."""
    quota = Quota(tokens_per_minute=100)
    place = Place.at(NOW, "a", 60, PLACE_LASTS_S)
    once = EMPTY.admit(quota, place, NOW).settle(place, 10)
    assert once.settle(place, 10) == once
    assert once.limits(quota, NOW)[0].remaining == 90


@pytest.mark.parametrize("period", [MINUTE_S, DAY_S])
def test_a_clock_that_is_behind_gives_back_what_it_has_taken(period):
    """In the window that its tokens went into, which for others had begun: at its end, or when it is given up."""
    quota = Quota(tokens_per_minute=100, tokens_per_day=100)
    turn = (NOW // period + 1) * period
    account = admit(EMPTY, quota, 10, turn + 0.1)
    behind = Place.at(turn - 0.4, "b", 60, PLACE_LASTS_S)
    taken = account.admit(quota, behind, turn - 0.4)
    assert [limit.remaining for limit in taken.limits(quota, turn)] == [30, 30]
    settled = taken.settle(taken.places["b"], 20)
    assert [limit.remaining for limit in settled.limits(quota, turn)] == [70, 70]
    assert taken.lost(behind.until) == (60, 60)


def test_a_place_is_given_up_after_a_while():
    """What a process that died has held is free again; until then it is taken."""
    quota = Quota(concurrency=1)
    account = admit(EMPTY, quota, 1)
    with pytest.raises(QuotaExceeded, match="1 requests are running") as refused:
        admit(account, quota, 1, NOW + PLACE_LASTS_S - 1, name="b")
    assert refused.value.limits[0].remaining == 0
    assert admit(account, quota, 1, NOW + PLACE_LASTS_S, name="b")


def test_who_finds_no_place_is_told_when_there_is_one():
    """In a moment, where any of the requests still renews its own; at the end of the first, where all have died."""
    quota = Quota(concurrency=2)
    account = EMPTY
    for name, renewed in (("a", 0), ("b", RENEW_EVERY_S)):
        account = account.admit(quota, Place.at(NOW + renewed, name, 1), NOW + renewed)

    def wait(after):
        with pytest.raises(QuotaExceeded) as refused:
            admit(account, quota, 1, NOW + after, name="c")
        return refused.value.retry_after_s

    # While b is not late for its next renewal, too.
    assert {wait(after) for after in (RENEW_EVERY_S, RENEW_EVERY_S + 15, 2 * RENEW_EVERY_S + 14)} == {1}
    after = 2 * RENEW_EVERY_S + 16
    assert wait(after) == PLACE_S - after
    assert admit(account, quota, 1, NOW + after + wait(after), name="c")
