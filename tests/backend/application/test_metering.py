"""Every generation is admitted, counted and settled, however it ends."""

import asyncio
from contextlib import aclosing, suppress
from dataclasses import replace

import pytest

from functions.backend.adapters.memory_key_store import MemoryKeyStore
from functions.backend.application.held_place import HeldPlace
from functions.backend.application.metering import Metering
from functions.backend.domain.account import PLACE_S
from functions.backend.domain.errors import (
    KeyStoreUnavailable,
    LLMBusy,
    LLMError,
    LLMRefused,
    LLMTimeout,
    LLMUnavailable,
    QuotaExceeded,
    SharedQuotaExceeded,
)
from functions.backend.domain.events import Done, StreamError, Token, Usage
from functions.backend.domain.generation import Generation
from functions.backend.domain.principal import GENERATE, Principal, anonymous
from functions.backend.domain.prompt import Prompt, PromptLimits
from functions.backend.domain.quota import Quota
from tests.undisturbed import undisturbed

NOW = 1_800_000_000.0
PROMPT = "Nevermore…"
# Nobody makes more tokens of a text than it has bytes.
MOST_TOKENS = 12
GENERATION = Generation(Prompt(PROMPT, PromptLimits(100)))
RAVEN = Principal("raven", "key", frozenset({GENERATE}), Quota(tokens_per_minute=100, concurrency=1))
DONE = Done("stop", Usage(6, 2, 8, cached_prompt_tokens=4, cpu_seconds=0.25), 42, "muninn-char")


async def nothing():
    """Give a generation of which nothing is told."""
    return
    yield


async def total(store, principal=RAVEN):
    [found] = await store.totals([principal.account])
    return found


async def left(metering, principal=RAVEN):
    """How many tokens of the minute are left, and how many places."""
    async with metering.admit(principal, "r", 0) as reservation:
        tokens, places = reservation.limits
        return tokens.remaining, places.remaining + 1


class Clock:
    """One second later whenever it is asked."""

    def __init__(self):
        self.seconds = iter(range(100))

    def __call__(self):
        return NOW + next(self.seconds)


def metered(*generations, estimate=50):
    """Run some generations one after another, each told of and broken off, and give the store and what is left.

    An exception among the events is the service's; the one at the end of all is their reader's.
    """

    async def source(events):
        for event in events:
            if isinstance(event, BaseException):
                raise event
            yield event

    async def run():
        store = MemoryKeyStore()
        metering = Metering(store, 1024, now=lambda: NOW, clock=Clock())
        with suppress(LLMError, asyncio.CancelledError):
            async with metering.admit(RAVEN, "r-1", estimate, len(generations)) as reservation:
                for events, end in generations:
                    async with aclosing(reservation.metered(GENERATION, source(events))) as told:
                        if end:
                            for _ in events:
                                await anext(told)
                            await asyncio.gather(told.athrow(end))
                        async for _ in told:
                            pass
        return await total(store), await left(metering)

    return asyncio.run(run())


def test_a_generation_costs_what_its_end_says():
    """Tokens by the Done, memory and dollars by the time; what was taken beyond that is given back, with the place."""
    used, remaining = metered(([Token(6, 1, "a"), Token(7, 1, "b"), DONE], None))
    assert (used.requests, used.prompt_tokens, used.completion_tokens) == (1, 6, 2)
    assert (used.cached_prompt_tokens, used.cpu_seconds) == (4, 0.25)
    assert used.gb_seconds == 1.0
    assert used.cost_usd == pytest.approx(0.0000166667)
    assert remaining == (92, 1)


@pytest.mark.parametrize("end", [None, LLMTimeout("late"), asyncio.CancelledError()])
@pytest.mark.parametrize("last", [[], [StreamError("internal", "It broke.", retryable=True)]])
def test_what_breaks_off_costs_what_was_made(end, last):
    """The prompt and the tokens that were told count, whether the model, the client or we ended it."""
    used, remaining = metered(([Token(6, 1, "a"), Token(7, 1, "b"), *last], end))
    assert (used.requests, used.prompt_tokens, used.completion_tokens) == (1, 6, 2)
    assert remaining == (92, 1)


@pytest.mark.parametrize(
    ("events", "end"),
    [
        ([LLMTimeout("late")], None),
        ([StreamError("deadline_exceeded", "late", retryable=True)], None),
        ([asyncio.CancelledError()], None),
    ],
)
def test_who_leaves_while_the_prompt_is_read_pays_for_it(events, end):
    """As much as was taken for it: nobody ever told how many tokens there are."""
    used, remaining = metered((events, end))
    assert (used.requests, used.prompt_tokens, used.completion_tokens) == (1, MOST_TOKENS, 0)
    assert used.gb_seconds > 0
    assert remaining == (100 - MOST_TOKENS, 1)


@pytest.mark.parametrize(
    "events",
    [
        [LLMBusy("queue_full", "Later.", retry_after="1")],
        [LLMUnavailable("It is away.")],
        [LLMRefused(404, "model_not_found", "There is none.", field="model")],
        [StreamError("internal", "It broke.", retryable=True)],
    ],
)
def test_what_was_refused_costs_nothing(events):
    """But for being a request."""
    used, remaining = metered((events, None))
    assert (used.requests, used.tokens, used.gb_seconds, used.cost_usd) == (1, 0, 0, 0)
    assert remaining == (100, 1)


def test_several_generations_of_one_request_are_added():
    """As `n` and `best_of` make them, and so is the time of each: each has the model's memory for itself."""
    used, _ = metered(*[([Token(6, 1, "a"), DONE], None)] * 2, ([Token(6, 1, "a")], None))
    assert (used.requests, used.prompt_tokens, used.completion_tokens) == (1, 18, 5)
    assert used.gb_seconds == 3.0


def test_who_has_no_account_is_not_counted():
    """Where nobody is asked who they are, nothing is limited or kept."""

    async def run():
        store = MemoryKeyStore()
        async with Metering(store).admit(anonymous(), "r", 10**9) as reservation:
            assert reservation.limits == ()
            assert reservation.metered(GENERATION, events := nothing()) is events
        return await total(store, anonymous())

    assert asyncio.run(run()).requests == 0


class SlowStore(MemoryKeyStore):
    """Takes a moment for everything, and breaks so often when a place is given back: before that is done, or after."""

    def __init__(self, breaks=0, *, does=False):
        super().__init__()
        self.breaks = breaks
        self.does = does

    async def reserve(self, *arguments):
        await asyncio.sleep(0.01)
        return await super().reserve(*arguments)

    async def settle(self, *arguments):
        await asyncio.sleep(0.01)
        breaks, self.breaks = self.breaks > 0, self.breaks - 1
        if breaks and not self.does:
            raise KeyStoreUnavailable("It is away.")
        account = await super().settle(*arguments)
        if breaks:
            raise KeyStoreUnavailable("Its answer is lost.")
        return account


@pytest.fixture
def pauses(monkeypatch):
    """The pauses that were made between tries, none of which takes long."""
    made, pause = [], HeldPlace._pause

    async def short(self, seconds):
        made.append(seconds)
        await pause(self, 0.001)

    monkeypatch.setattr(HeldPlace, "_pause", short)
    return made


class RenewedStore(MemoryKeyStore):
    """Lets a test wait for renewals, of which the first so many break."""

    def __init__(self, breaks=0):
        super().__init__()
        self.breaks = breaks
        self.asked = 0
        self.renewed = asyncio.Event()

    async def renew(self, *arguments):
        self.asked += 1
        if self.asked <= self.breaks:
            raise KeyStoreUnavailable("It is away.")
        was_there = await super().renew(*arguments)
        self.renewed.set()
        return was_there

    async def next(self):
        """Return when one more renewal was made, at the time that it is when this is called."""
        async with asyncio.timeout(10):
            for _ in range(2):
                self.renewed.clear()
                await self.renewed.wait()


@pytest.fixture
def often(monkeypatch):
    """Renew places all the time."""
    monkeypatch.setattr("functions.backend.application.held_place.RENEW_EVERY_S", 0.001)
    monkeypatch.setattr("functions.backend.application.held_place._RENEW_AGAIN_S", 0.001)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("breaks", [0, 3])
def test_who_still_runs_keeps_its_place(breaks):
    """However long that is, and though a renewal fails now and then; nobody renews it afterwards."""

    async def run():
        clock = [NOW]
        store = RenewedStore(breaks)
        metering = Metering(store, now=lambda: clock[0])
        async with metering.admit(RAVEN, "r", 10) as reservation:
            for _ in range(12):
                clock[0] += PLACE_S - 1
                await store.next()
                with pytest.raises(QuotaExceeded, match="1 requests are running"):
                    await left(metering)
            reservation.count_read(7)
            await reservation.finish()
            asked = store.asked
            await asyncio.sleep(0.02)
            assert store.asked == asked
        # What was not needed was another minute's; it is the day's, too.
        assert await left(metering) == (100, 1)
        assert (await total(store)).prompt_tokens == 7
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())


def test_a_renewal_that_fails_is_tried_again_soon(monkeypatch):
    """A store that is away for a minute must not cost anybody's place: there are more tries than one in that time."""
    monkeypatch.setattr("functions.backend.application.held_place.RENEW_EVERY_S", 0.1)
    monkeypatch.setattr("functions.backend.application.held_place._RENEW_AGAIN_S", 0)

    async def run():
        store = RenewedStore(breaks=1000)
        async with Metering(store).admit(RAVEN, "r", 10), asyncio.timeout(50):
            await store.renewed.wait()
        return store.asked

    assert asyncio.run(run()) == 1001


@pytest.mark.usefixtures("often")
def test_a_reader_keeps_its_place_among_all_readers():
    """As it keeps its own."""

    async def run():
        clock = [NOW]
        metering = Metering(store := RenewedStore(), now=lambda: clock[0])
        reader = Principal("a", "session", frozenset({GENERATE}), Quota(), shared=Quota(concurrency=1))
        async with metering.admit(reader, "r", 10):
            clock[0] += PLACE_S - 1
            async with asyncio.timeout(10):
                while {held.until for each, _ in store._accounts.values() for held in each.places.values()} != {
                    clock[0] + PLACE_S
                }:
                    await store.next()
        return {name: len(each.places) for name, (each, _) in store._accounts.items()}

    assert asyncio.run(run()) == {"session:a": 0, "sessions": 0}


def test_a_short_request_renews_nothing():
    """It costs the store two writes, as ever."""

    async def run():
        store = RenewedStore()
        async with Metering(store).admit(RAVEN, "r", 10):
            await asyncio.sleep(0.02)
        return store.asked

    assert asyncio.run(run()) == 0


def test_who_has_died_holds_its_place_for_a_while_only():
    """Without anybody who renews it; what it has taken is there again as well."""

    async def run():
        clock = [NOW]
        metering = Metering(MemoryKeyStore(), now=lambda: clock[0])
        async with metering.admit(RAVEN, "r", 60):
            clock[0] = NOW + PLACE_S - 1
            with pytest.raises(QuotaExceeded, match="running"):
                await left(metering)
            clock[0] = NOW + PLACE_S
            assert await left(metering) == (100, 1)

    asyncio.run(run())


@pytest.mark.usefixtures("often")
def test_who_was_given_up_and_lives_takes_its_place_again():
    """When the store is there again, and though somebody else has it by then: that text is being written."""

    async def run():
        clock = [NOW]
        store = RenewedStore(breaks=10**9)
        metering = Metering(store, now=lambda: clock[0])
        async with metering.admit(RAVEN, "r", 60):
            clock[0] = NOW + PLACE_S
            async with metering.admit(RAVEN, "s", 10):
                store.breaks = 0
                await store.next()
                with pytest.raises(QuotaExceeded, match="2 requests are running") as refused:
                    await left(metering)
                assert refused.value.limits[0].remaining == 30
        return await left(metering), (await total(store)).requests

    assert asyncio.run(run()) == ((100, 1), 3)


@pytest.mark.parametrize("breaks", [0, 2])
def test_who_was_given_up_and_ends_is_counted(pauses, breaks):
    """Its place is taken again to be settled, once, also where that has to be tried again."""

    async def run():
        clock = [NOW]
        store = SlowStore(does=True)
        metering = Metering(store, now=lambda: clock[0] + sum(pauses))
        async with metering.admit(RAVEN, "r", 60) as reservation:
            reservation.count_read(7)
            clock[0] = NOW + 10 * PLACE_S
            await left(metering)
            store.breaks = breaks
        if metering._working:
            await asyncio.wait(metering._working)
        used = await total(store)
        return used.requests, used.prompt_tokens, await left(metering)

    assert asyncio.run(run()) == (2, 7, (93, 1))


@undisturbed
def test_a_client_that_leaves_while_it_is_admitted_takes_nothing():
    """The store has it by then; it is given back behind the client's back."""

    async def run():
        metering = Metering(SlowStore())

        async def ask():
            async with metering.admit(RAVEN, "r", 100):
                raise AssertionError("it has left")

        asking = asyncio.create_task(ask())
        await asyncio.sleep(0.001)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        await metering.settled()
        return await left(metering)

    assert asyncio.run(run()) == (100, 1)


def test_who_is_cancelled_twice_gives_its_place_back():
    """As when a client leaves and the server ends at the same time: what is being settled is settled."""

    async def run():
        metering, began = Metering(SlowStore()), asyncio.Event()

        async def ask():
            async with metering.admit(RAVEN, "r", 100):
                began.set()
                await asyncio.sleep(10)

        asking = asyncio.create_task(ask())
        await began.wait()
        asking.cancel()
        await asyncio.sleep(0.001)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        await metering.settled()
        return await left(metering)

    assert asyncio.run(run()) == (100, 1)


def test_several_texts_of_one_request_take_one_place():
    """However many are made side by side: a quota's concurrency is one of requests, and its tokens are those of all."""

    async def run():
        async with Metering(MemoryKeyStore()).admit(RAVEN, "r", 1, generations=8) as reservation:
            return reservation.limits[1].remaining

    assert asyncio.run(run()) == RAVEN.quota.concurrency - 1


READER = Principal("reader", "session", frozenset({GENERATE}), RAVEN.quota, Quota(tokens_per_day=50))


def test_what_all_share_is_refused_in_words_of_its_own():
    """Who has used little is to know that it was others; and who has used all of their own, that it was them."""

    async def run():
        metering = Metering(MemoryKeyStore(), now=lambda: NOW)
        for tokens, kind, word in ((51, SharedQuotaExceeded, "All visitors"), (101, QuotaExceeded, "The request")):
            with pytest.raises(QuotaExceeded, match=f"^{word}") as refused:
                await metering.admit(READER, "r", tokens).__aenter__()
            assert type(refused.value) is kind

    asyncio.run(run())


def test_what_nobody_limits_is_not_counted():
    """One account for all would be written by all."""

    async def run():
        store = MemoryKeyStore()
        async with Metering(store).admit(replace(READER, shared=None), "r", 1):
            return set(store._accounts)

    assert asyncio.run(run()) == {"session:reader"}


class HalfwayStore(MemoryKeyStore):
    """Does something when the first of two places is taken, and the second is not."""

    def __init__(self, halfway):
        super().__init__()
        self._halfway = halfway

    async def reserve(self, account, *arguments):
        if account == "sessions":
            self._halfway()
            await asyncio.sleep(0.01)
        return await super().reserve(account, *arguments)

    def places(self):
        return [account.places for account, _ in self._accounts.values()]


def test_who_leaves_while_the_shared_place_is_taken_gives_back_both():
    """As who leaves before."""

    async def run():
        halfway = asyncio.Event()
        metering = Metering(store := HalfwayStore(halfway.set))

        async def ask():
            async with metering.admit(READER, "r", 50):
                raise AssertionError("it has left")

        asking = asyncio.create_task(ask())
        await halfway.wait()
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        await metering.settled()
        return store.places()

    assert asyncio.run(run()) == [{}, {}]


def test_a_store_that_goes_away_between_the_two_keeps_neither():
    """What was taken first is given back."""

    async def run():
        def go_away():
            raise KeyStoreUnavailable("It is away.")

        metering = Metering(store := HalfwayStore(go_away))
        with pytest.raises(KeyStoreUnavailable):
            await metering.admit(READER, "r", 50).__aenter__()
        await metering.settled()
        return store.places()

    assert asyncio.run(run()) == [{}]


def test_a_clock_that_is_behind_gives_back_what_it_has_taken():
    """Though the place that it asked for is of a minute that is over for others."""

    async def run():
        store, turn = MemoryKeyStore(), (NOW // 60 + 1) * 60
        behind, ahead = (Metering(store, now=lambda now=now: now) for now in (turn - 0.5, turn))
        async with ahead.admit(RAVEN, "r", 10):
            pass
        async with behind.admit(RAVEN, "r", 80):
            pass
        return await left(ahead)

    assert asyncio.run(run()) == (100, 1)


def test_two_at_a_time_take_one_place():
    """However they meet."""

    async def run():
        metering = Metering(SlowStore())

        async def ask():
            async with metering.admit(RAVEN, "r", 1):
                await asyncio.sleep(0.03)

        return await asyncio.gather(ask(), ask(), return_exceptions=True)

    ended = asyncio.run(run())
    assert [type(each) for each in ended].count(QuotaExceeded) == 1
    assert ended.count(None) == 1


@pytest.mark.parametrize("does", [False, True])
def test_what_was_not_kept_is_tried_again(pauses, caplog, does):
    """Behind the back of whoever has read its answer, with growing pauses; and counted once, though it was done."""

    async def run():
        store = SlowStore(breaks=7, does=does)
        metering = Metering(store)
        async with metering.admit(RAVEN, "r-7", 100) as reservation:
            reservation.count_read(40)
        assert store.breaks == 6  # it has waited for one try
        assert (reservation.limits[0].remaining, reservation.limits[1].remaining) == (0, 0)
        await asyncio.wait(metering._working)
        used = await total(store)
        assert (used.requests, used.prompt_tokens) == (1, 40)
        return await left(metering)

    assert asyncio.run(run()) == (60, 1)
    assert pauses == [0.5, 1, 2, 4, 8, 10, 10]
    assert "could not be kept" not in caplog.text


def test_what_may_be_kept_is_not_taken_again(pauses):
    """Though its place is over when it is tried again: the answer alone may have been lost."""

    async def run():
        metering = Metering(store := SlowStore(breaks=1, does=True), now=lambda: NOW + (PLACE_S if pauses else 0))
        async with metering.admit(RAVEN, "r", 100) as reservation:
            reservation.count_read(40)
        await asyncio.wait(metering._working)
        return (await total(store)).requests, len(pauses)

    assert asyncio.run(run()) == (1, 1)


def test_what_cannot_be_kept_is_told_when_its_place_ends(pauses, caplog):
    """No answer is spoilt by our book-keeping; and it is not tried for ever."""

    async def run():
        metering = Metering(SlowStore(breaks=10**9), now=lambda: NOW + sum(pauses))
        async with metering.admit(RAVEN, "r-7", 100) as reservation:
            reservation.count_read(40)
        assert "could not be kept" not in caplog.text
        await asyncio.wait(metering._working)

    asyncio.run(run())
    assert "request r-7: its usage could not be kept: 40 tokens" in caplog.text
    assert PLACE_S - 15 < sum(pauses) < PLACE_S


@pytest.mark.parametrize("breaks", [1, 10**9])
def test_a_stop_waits_for_no_pause(monkeypatch, caplog, breaks):
    """What is to be tried again is tried at once; what is not kept when the process waits no longer is told."""
    monkeypatch.setattr("functions.backend.application.held_place._FIRST_PAUSE_S", 60.0)

    async def run():
        store = SlowStore(breaks=breaks)
        metering = Metering(store)
        async with metering.admit(RAVEN, "r-7", 1):
            pass
        with suppress(TimeoutError):
            async with asyncio.timeout(10 if breaks == 1 else 1):
                await metering.settled()
        tries = breaks - store.breaks
        await asyncio.sleep(0.01)  # those that were given up have said so
        told = "request r-7: its usage could not be kept" in caplog.text
        return tries, (await total(store)).requests, told

    assert asyncio.run(run()) == ((2, 1, False) if breaks == 1 else (2, 0, True))


def test_a_store_that_says_nothing_holds_no_answer_up(monkeypatch):
    """A text's end waits for its settlement, and not for ever."""
    monkeypatch.setattr("functions.backend.application.metering._WAITS_S", 0.01)

    class Hangs(MemoryKeyStore):
        async def settle(self, *_):
            await asyncio.Event().wait()

    async def run():
        async with asyncio.timeout(10), Metering(Hangs()).admit(RAVEN, "r", 1):
            pass

    asyncio.run(run())


def test_the_end_tells_what_is_left_then():
    """Of the tokens that were taken, those that were not needed are there again, and so is the place."""

    async def run():
        async with Metering(MemoryKeyStore()).admit(RAVEN, "r", 100) as reservation:
            assert [limit.remaining for limit in reservation.limits] == [0, 0]
            reservation.count_read(40)
        return [limit.remaining for limit in reservation.limits]

    assert asyncio.run(run()) == [60, 1]


def test_the_events_are_the_same_events():
    """Nothing is held back or changed on the way, but that the end tells what it has cost."""

    async def run():
        async def source():
            for event in (Token(6, 1, "a"), DONE):
                yield event

        admitted = Metering(MemoryKeyStore(), now=lambda: NOW, clock=Clock()).admit(RAVEN, "r", 1)
        async with admitted as reservation, aclosing(reservation.metered(GENERATION, source())) as events:
            return [event async for event in events]

    first, done = asyncio.run(run())
    assert first == Token(6, 1, "a")
    assert replace(done, usage=DONE.usage) == DONE
    # A second of 3008 MB.
    assert done.usage.gb_seconds == pytest.approx(3008 / 1024)
    assert done.usage.cost_usd == pytest.approx(3008 / 1024 * 0.0000166667)
