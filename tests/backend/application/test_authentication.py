"""Keys are looked up now and then, for as long as somebody uses them, and not more often than that."""

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest

from functions.backend.adapters.memory_key_store import MemoryKeyStore
from functions.backend.application.authentication import REMEMBER_S, Authentication
from functions.backend.application.while_good import while_good
from functions.backend.domain.errors import KeyStoreUnavailable, Unauthenticated
from functions.backend.domain.key import Key, digest_of, mint
from functions.backend.domain.quota import NO_LIMITS

NOW = 1_800_000_000.0
KEY_ID, TEXT = mint(bytes(38))
KEY = Key(KEY_ID, "raven", digest_of(TEXT), frozenset({"generate"}), NOW)


class CountedStore(MemoryKeyStore):
    """Says how many times it was asked for a key."""

    def __init__(self):
        super().__init__()
        self.looks = 0
        self.is_away = False

    async def find(self, key_id):
        self.looks += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise KeyStoreUnavailable("Not now.")
        return await super().find(key_id)


def run(work, key=KEY):
    """Run it with a store that has the key, and with what knows it, whose clock is a list of one time."""

    async def main():
        store, clock = CountedStore(), [NOW]
        await store.add(key)
        return await work(store, Authentication(store, (), NO_LIMITS, now=lambda: clock[0]), clock)

    return asyncio.run(main())


def test_who_asks_at_the_same_time_asks_once():
    """However many answers run for a key, and whoever of them is given up meanwhile."""

    async def work(store, authentication, clock):
        asking = [asyncio.create_task(authentication.good_for(KEY_ID)) for _ in range(100)]
        await asyncio.sleep(0)
        asking[0].cancel()
        await asyncio.gather(*asking, authentication.of_key(TEXT), return_exceptions=True)
        clock[0] += REMEMBER_S - 1
        assert await authentication.good_for(KEY_ID) == 1
        assert store.looks == 1
        clock[0] += 1
        assert await authentication.good_for(KEY_ID) == REMEMBER_S
        assert store.looks == 2

    run(work)


def test_what_nobody_could_say_is_asked_again():
    """By the next who comes; those who asked together have one answer."""

    async def work(store, authentication, _):
        store.is_away = True
        ended = await asyncio.gather(*[authentication.good_for(KEY_ID) for _ in range(3)], return_exceptions=True)
        assert [type(each) for each in ended] == [KeyStoreUnavailable] * 3
        assert store.looks == 1
        store.is_away = False
        assert await authentication.good_for(KEY_ID) == REMEMBER_S

    run(work)


def test_a_key_is_good_up_to_its_end():
    """To the moment, though it is remembered for longer."""

    async def work(_, authentication, clock):
        assert await authentication.good_for(KEY_ID) == 2.5
        clock[0] += 2.5
        with pytest.raises(Unauthenticated):
            await authentication.good_for(KEY_ID)

    run(work, replace(KEY, expires=NOW + 2.5))


def test_who_is_cancelled_by_somebody_else_stays_cancelled():
    """At the very moment, too, at which the key is found to be good no more: a server that stops wants to end."""

    async def work():
        begun = asyncio.Event()

        async def good_for(_):
            await begun.wait()
            answering.cancel()
            raise Unauthenticated("No more.")

        async def answer():
            async with while_good(KEY.principal, good_for):
                begun.set()
                await asyncio.Event().wait()

        answering = asyncio.create_task(answer())
        with pytest.raises(asyncio.CancelledError):
            await answering

    asyncio.run(work())


def test_who_has_ended_is_not_cancelled_afterwards():
    """A block that ends leaves nobody behind who watches it."""

    async def work(store, authentication, _):
        before = asyncio.all_tasks()
        with suppress(ZeroDivisionError):
            async with while_good(KEY.principal, authentication.good_for):
                await asyncio.sleep(0)
                await store.revoke(KEY_ID, NOW)
                raise ZeroDivisionError
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before

    run(work)
