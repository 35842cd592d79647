"""Every store keeps the port's word: the one in memory is the model of the others."""

import asyncio
import json
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import count, cycle

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from functions.backend.adapters.dynamodb import DynamoDB
from functions.backend.adapters.key_stores import key_store_named
from functions.backend.adapters.memory_key_store import MemoryKeyStore
from functions.backend.application.metering import Metering
from functions.backend.domain.account import DAY_S, MINUTE_S, Place
from functions.backend.domain.errors import KeyStoreUnavailable, QuotaExceeded, SharedQuotaExceeded
from functions.backend.domain.key import Key
from functions.backend.domain.principal import Principal
from functions.backend.domain.quota import NO_LIMITS, Quota, RateLimit
from functions.backend.domain.usage_total import UsageTotal
from tests.backend.key_store_server import REGION, TABLE, client_of, dynamodb_server

NOW = 20_000 * DAY_S + 10.5
KEY = Key("abcd1234", "ravens", bytes(range(32)), frozenset({"generate"}), NOW, Quota(100, None, 2), NOW + 1)
QUOTA = Quota(tokens_per_minute=100, tokens_per_day=150, concurrency=2)
USAGE = UsageTotal(1, 6, 4, 20, 0.25, 1.5, 0.000025)
PLACE_LASTS_S = 330.0
_numbers = count()


@pytest.fixture(scope="module")
def dynamodb():
    with dynamodb_server() as environ:
        yield environ


@pytest.fixture(params=["memory", "sqlite", "dynamodb"])
def run(request, tmp_path, dynamodb):
    """Run a coroutine function with an empty store, and another of the same place where there is one."""
    if request.param == "dynamodb":
        client = client_of(dynamodb)
        for item in client.scan(TableName=TABLE)["Items"]:
            client.delete_item(TableName=TABLE, Key={"pk": item["pk"], "sk": item["sk"]})

    def open_one():
        name = {"memory": "", "sqlite": f"sqlite:{tmp_path / 'new' / 'keys.sqlite'}", "dynamodb": f"dynamodb:{TABLE}"}
        return key_store_named(name[request.param], REGION, dynamodb)

    def run_with_stores(work):
        async def main():
            one = open_one()
            other = one if request.param == "memory" else open_one()
            try:
                return await work(one, other)
            finally:
                await one.aclose()
                await other.aclose()

        return asyncio.run(main())

    return run_with_stores


def place(tokens, now=NOW, lasts_s=PLACE_LASTS_S):
    return Place.at(now, f"p{next(_numbers)}", tokens, lasts_s)


def remaining(account, now=NOW, quota=QUOTA):
    return [limit.remaining for limit in account.limits(quota, now)]


def test_a_key_is_found_as_it_was_kept(run):
    """By everybody, with all that is known of it, and only one of an id is kept."""
    plain = Key("zyxw9876", "a", b"\xff" * 32, frozenset({"generate", "admin"}), NOW - 1.25)

    async def work(one, other):
        assert await one.find(KEY.id) is None
        assert await one.add(KEY)
        assert not await other.add(replace(KEY, name="thief"))
        assert await other.add(plain)
        assert await other.find(KEY.id) == KEY
        assert list(await one.keys()) == [plain, KEY]

    run(work)


def test_a_revoked_key_stays_known_as_such(run):
    """Since when it was revoked first; of a key that is not there it is said so."""

    async def work(one, other):
        await one.add(KEY)
        assert await one.revoke(KEY.id, NOW + 2)
        assert await other.revoke(KEY.id, NOW + 3)
        assert not await other.revoke("nokey000", NOW)
        assert await other.find(KEY.id) == replace(KEY, revoked=NOW + 2)
        assert await one.find("nokey000") is None

    run(work)


def test_an_account_is_the_same_for_all(run):
    """What one process takes and gives back, the other counts with."""

    async def work(one, other):
        first, second = place(40), place(30)
        assert remaining(await one.reserve("key:a", QUOTA, first, NOW)) == [60, 110, 1]
        assert remaining(await other.reserve("key:a", QUOTA, second, NOW)) == [30, 80, 0]
        await other.settle("key:a", first, USAGE, NOW + 1)
        await one.settle("key:a", second, USAGE, NOW + 1)
        third = place(10)
        assert remaining(await one.reserve("key:a", QUOTA, third, NOW)) == [100 - 52 - 10, 150 - 52 - 10, 1]
        assert remaining(await one.reserve("key:b", QUOTA, place(0), NOW)) == [100, 150, 1]
        [used, nothing] = await other.totals(["key:a", "key:c"])
        assert used == USAGE + USAGE
        assert nothing == UsageTotal()

    run(work)


def test_a_refusal_takes_nothing(run):
    """Neither tokens nor a place, whichever limit it was."""

    async def work(one, other):
        held = place(90)
        await one.reserve("key:a", QUOTA, held, NOW)
        for store in (one, other):
            with pytest.raises(QuotaExceeded, match="of the 100 of this minute 10 are left") as refused:
                await store.reserve("key:a", QUOTA, place(11), NOW)
            assert refused.value.retry_after_s == MINUTE_S - 10.5
        await other.reserve("key:a", QUOTA, place(10), NOW)
        for store in (one, other):
            with pytest.raises(QuotaExceeded, match="2 requests are running"):
                await store.reserve("key:a", QUOTA, place(0), NOW)
        await other.settle("key:a", held, UsageTotal(1), NOW)
        assert remaining(await one.reserve("key:a", QUOTA, place(0), NOW)) == [90, 140, 0]

    run(work)


def test_windows_and_places_end(run):
    """A new minute has its tokens again, a new day its own; a place that nobody gives back is free in time."""

    async def work(one, other):
        await one.reserve("key:a", QUOTA, place(100), NOW)
        minute, day = NOW + MINUTE_S, NOW + DAY_S
        assert remaining(await other.reserve("key:a", QUOTA, place(50, minute), minute), minute) == [50, 0, 0]
        with pytest.raises(QuotaExceeded, match="of this day"):
            await one.reserve("key:a", QUOTA, place(1, minute), minute)
        assert remaining(await one.reserve("key:a", QUOTA, place(9, day), day), day) == [91, 141, 1]
        late = day + PLACE_LASTS_S
        # With what nobody gave back of it.
        assert remaining(await one.reserve("key:a", QUOTA, place(1, late), late), late) == [99, 149, 1]

    run(work)


def test_a_place_settled_in_another_window_gives_that_one_nothing(run):
    """Its tokens were taken from a minute that is over."""

    async def work(one, other):
        old = place(60)
        await one.reserve("key:a", QUOTA, old, NOW)
        later = NOW + MINUTE_S
        await other.reserve("key:a", QUOTA, place(10, later), later)
        await one.settle("key:a", old, UsageTotal(1, 5, 0, 5), later)
        assert remaining(await one.reserve("key:a", QUOTA, place(0, later), later), later) == [90, 130, 0]

    run(work)


def test_a_place_that_was_given_up_gives_its_tokens_back_once(run):
    """Who held it may have died, and may not: when it then says what it has used, nothing is given back again."""

    async def work(one, other):
        lost, late, now = place(60, lasts_s=5), place(30, lasts_s=5), NOW + 5
        for each in (lost, late):
            await one.reserve("key:a", QUOTA, each, NOW)
        with pytest.raises(QuotaExceeded):
            await other.reserve("key:a", QUOTA, place(20), NOW + 4)
        held = place(20, now)
        assert remaining(await other.reserve("key:a", QUOTA, held, now), now) == [80, 130, 1]
        assert remaining(await one.settle("key:a", late, UsageTotal(1, 7), now), now) == [80, 130, 1]
        await one.settle("key:a", held, UsageTotal(1, 3), now)
        assert remaining(await other.reserve("key:a", QUOTA, place(0, now), now), now) == [97, 147, 1]

    run(work)


def test_a_place_that_is_renewed_lasts(run):
    """Through whichever process, also one that is over and was not given up yet; its tokens stay where they were."""

    async def work(one, other):
        mine, over, now = place(60, lasts_s=5), place(20, lasts_s=5), NOW + MINUTE_S
        for each in (mine, over):
            await one.reserve("key:a", QUOTA, each, NOW)
        assert await other.renew("key:a", mine.name, now + 5)
        assert remaining(await other.reserve("key:a", QUOTA, place(10, now), now), now) == [90, 80, 0]
        assert not await one.renew("key:a", over.name, now + 5)
        assert await one.renew("key:a", mine.name, now + 9)
        with pytest.raises(QuotaExceeded, match="2 requests are running"):
            await other.reserve("key:a", QUOTA, place(0, now), now + 8)
        assert remaining(await other.settle("key:a", mine, UsageTotal(1, 5), now), now) == [90, 135, 1]
        assert not await one.renew("key:a", mine.name, now + 9)
        assert not await one.renew("key:b", mine.name, now + 9)

    run(work)


def test_a_place_is_settled_once(run):
    """Whoever does not know whether it was done asks again, here or there: the usage is counted once."""

    async def work(one, other):
        mine, theirs = place(60), place(20)
        for each in (mine, theirs):
            await one.reserve("key:a", QUOTA, each, NOW)
        assert remaining(await one.settle("key:a", mine, UsageTotal(1, 5), NOW)) == [75, 125, 1]
        for store in (one, other):
            assert remaining(await store.settle("key:a", mine, UsageTotal(1, 5), NOW)) == [75, 125, 1]
        later = NOW + DAY_S
        assert remaining(await other.settle("key:a", mine, UsageTotal(1, 5), later), later) == [100, 150, 2]
        assert await one.totals(["key:a"]) == [UsageTotal(1, 5)]
        assert remaining(await other.settle("key:b", mine, UsageTotal(1, 5), NOW)) == [100, 150, 2]
        assert await one.totals(["key:b"]) == [UsageTotal()]

    run(work)


@pytest.mark.parametrize("period", [MINUTE_S, DAY_S])
def test_a_clock_that_is_behind_gives_back_what_it_has_taken(run, period):
    """At the turn of a minute or a day, when another host has begun the next: it is that one that they went into."""

    async def work(one, other):
        turn = (NOW // period + 1) * period
        behind = turn - 0.5
        await one.reserve("key:a", QUOTA, place(10, turn), turn)
        # The second finds the account as it is, and the third remembers it.
        for tokens in (50, 30):
            asked = place(tokens, behind)
            account = await other.reserve("key:a", QUOTA, asked, behind)
            taken = account.places[asked.name]
            assert (taken.minute, taken.day) == (account.minute, account.day) == (turn // MINUTE_S, turn // DAY_S)
            await other.settle("key:a", taken, UsageTotal(1, 5), behind)
        given_up = place(60, behind, 10)
        await other.reserve("key:a", QUOTA, given_up, behind)
        later = given_up.until
        assert remaining(await one.reserve("key:a", QUOTA, place(0, later), later), later) == [80, 130, 0]

    run(work)


def test_many_at_the_same_time_take_no_more_than_there_is(run):
    """Whoever comes, through whichever process: the sum is the limit's, and nobody is refused who would have fitted."""
    quota = Quota(tokens_per_minute=100)

    async def work(one, other):
        asked = [(one, other)[number % 2].reserve("key:a", quota, place(10), NOW) for number in range(16)]
        ended = await asyncio.gather(*asked, return_exceptions=True)
        refused = [each for each in ended if isinstance(each, QuotaExceeded)]
        assert len(refused) == 6
        assert len([each for each in ended if not isinstance(each, Exception)]) == 10

    run(work)


@pytest.mark.parametrize("shared", [Quota(concurrency=3), Quota(tokens_per_minute=30), Quota(tokens_per_day=39)])
def test_what_all_readers_share_is_taken_with_their_own_or_not_at_all(run, shared):
    """Whoever comes, through whichever process: no more than there is for all, and who is refused has used nothing."""

    async def work(one, other):
        meterings = [Metering(store, now=lambda: NOW) for store in (one, other)]
        readers = [Principal(f"reader{number}", "session", frozenset(), QUOTA, shared) for number in range(9)]
        async with AsyncExitStack() as running:
            entered = [
                running.enter_async_context(metering.admit(reader, "r", 10))
                for metering, reader in zip(cycle(meterings), readers, strict=False)
            ]
            ended = await asyncio.gather(*entered, return_exceptions=True)
            refused = [reader for reader, each in zip(readers, ended, strict=True) if isinstance(each, Exception)]
            assert [type(each) for each in ended].count(SharedQuotaExceeded) == len(refused) == 6
            [admitted, *_] = [each for each in ended if not isinstance(each, Exception)]
            # What is told is their own, which is what they can do something about.
            assert [limit.remaining for limit in admitted.limits] == [90, 140, 1]
        for metering in meterings:
            await metering.settled()
        assert (await one.totals(["sessions"]))[0].requests == 3
        for reader in refused:
            assert remaining(await other.reserve(reader.account, QUOTA, place(0), NOW)) == [100, 150, 1]
        assert remaining(await other.reserve("sessions", QUOTA, place(0), NOW)) == [100, 150, 1]

    run(work)


def test_who_has_no_limits_is_counted_all_the_same(run):
    """As a key without a quota is."""

    async def work(one, other):
        held = place(10**6)
        account = await one.reserve("key:a", NO_LIMITS, held, NOW)
        assert account.limits(NO_LIMITS, NOW) == ()
        await other.settle("key:a", held, USAGE, NOW)
        assert await one.totals(["key:a"]) == [USAGE]

    run(work)


def test_totals_are_in_the_order_asked_for(run):
    """However many, also of an account that is asked for twice, and of those that nobody has used."""

    async def work(one, other):
        names = [f"key:{number}" for number in range(205)]
        for number in (0, 99, 100, 204):
            held = place(1)
            await one.reserve(names[number], NO_LIMITS, held, NOW)
            await one.settle(names[number], held, UsageTotal(1, number), NOW)
        found = await other.totals([*names, names[204]])
        assert [(number, total.prompt_tokens) for number, total in enumerate(found) if total.requests] == [
            (0, 0), (99, 99), (100, 100), (204, 204), (205, 204)
        ]  # fmt: skip
        assert await other.totals([]) == []

    run(work)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(0, 60)),
        st.tuples(st.just("settle"), st.integers(0, 70)),
        st.tuples(st.just("wait"), st.sampled_from([1, 30, 60, PLACE_LASTS_S / 2, DAY_S / 2])),
    ),
    min_size=6,
    max_size=12,
)


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.reuse, Phase.generate],  # each try asks a server: shrinking takes minutes
)
@given(STEPS)
def test_every_store_says_what_memory_says(run, steps):
    """Admitted or refused, and what is left: after whatever has happened, through two processes by turns."""
    account = f"key:{next(_numbers)}"

    async def work(one, other):
        model, now, running = MemoryKeyStore(), NOW, []
        for number, (step, amount) in enumerate(steps):
            store = (one, other)[number % 2]
            if step == "wait":
                now += amount
            elif step == "settle" and running:
                ended = running.pop(0)
                usage = UsageTotal(1, amount)
                accounts = [await each.settle(account, ended, usage, now) for each in (model, store)]
                assert accounts[0].limits(QUOTA, now) == accounts[1].limits(QUOTA, now)
                running += [ended] * (amount % 3 == 0)  # and once more, later
            elif step == "reserve":
                # Some are given up within their own minute.
                taken = place(amount, now, PLACE_LASTS_S if amount % 2 else 20)
                found = []
                for each in (model, store):
                    try:
                        found.append((await each.reserve(account, QUOTA, taken, now)).limits(QUOTA, now))
                    except QuotaExceeded as refused:
                        found.append((refused.message, refused.limits))
                assert found[0] == found[1]
                if isinstance(found[0][0], RateLimit):
                    running.append(taken)
        if account in model._accounts:
            assert await one.totals([account]) == await model.totals([account])

    run(work)


def test_memory_forgets_the_oldest_accounts(monkeypatch):
    """There are as many as there are readers."""
    monkeypatch.setattr("functions.backend.adapters.memory_key_store.MAX_ACCOUNTS", 2)

    async def work():
        store = MemoryKeyStore()
        for name in ("session:a", "session:b", "session:a", "session:c"):
            await store.reserve(name, NO_LIMITS, place(1), NOW)
        return [remaining(await store.reserve(name, QUOTA, place(0), NOW))[0] for name in ("session:c", "session:b")]

    assert asyncio.run(work()) == [99, 100]


def sqlite_store(path):
    return key_store_named(f"sqlite:{path}", "", {})


def test_the_file_is_its_owner_s(tmp_path):
    """Hashes of keys are nobody else's, and neither are the files that SQLite keeps beside them."""

    async def work():
        store = sqlite_store(tmp_path / "keys.sqlite")
        await store.add(KEY)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        await store.aclose()
        return modes

    modes = asyncio.run(work())
    assert set(modes) == {"keys.sqlite", "keys.sqlite-wal", "keys.sqlite-shm"}
    assert set(modes.values()) == {0o600}


def test_who_comes_while_the_file_is_closed_opens_it_anew(tmp_path):
    """What was begun before is brought to its end by the thread that began it, and the next has one of its own."""
    path = tmp_path / "keys.sqlite"

    async def work():
        store = sqlite_store(path)
        await store.add(KEY)
        # The store's thread waits for this one.
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(store.revoke(KEY.id, NOW))
        await asyncio.sleep(0)
        closing = asyncio.create_task(store.aclose())
        await asyncio.sleep(0)
        found = await store.find(KEY.id)
        assert not waiting.done()
        db.execute("ROLLBACK")
        db.close()
        assert await waiting
        await closing
        assert found == KEY
        assert (await store.find(KEY.id)).revoked == NOW
        await store.aclose()

    asyncio.run(work())


def remove_store(path):
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()


@pytest.mark.parametrize("remade", [False, True], ids=["removed", "remade"])
def test_who_removes_the_file_has_taken_its_keys_back(tmp_path, remade, caplog):
    """Whether or not somebody makes a new one: no key is good that is not in the file of that name."""
    path, new = tmp_path / "keys" / "keys.sqlite", replace(KEY, id="newkey00")

    async def work():
        store, other = sqlite_store(path), sqlite_store(path)
        await store.add(KEY)
        remove_store(path)
        if remade:
            await other.add(new)
        else:
            path.parent.rmdir()
        assert await store.find(KEY.id) is None
        assert await store.find(new.id) == (new if remade else None)
        await store.reserve("key:newkey00", QUOTA, place(60), NOW)
        assert remaining(await other.reserve("key:newkey00", QUOTA, place(0), NOW)) == [40, 90, 0]
        await store.aclose()
        await other.aclose()

    asyncio.run(work())
    assert caplog.text.count(f"{path} is another file than before, and is opened anew") == 1


HOLDER = """
import asyncio, sys
from pathlib import Path
from functions.backend.adapters.sqlite_key_store import SQLiteKeyStore

async def main():
    store = SQLiteKeyStore(Path(sys.argv[1]))
    for _ in range(2):
        print(*[(key.id, key.revoked) for key in await store.keys()], flush=True)
        sys.stdin.readline()
    await store.aclose()

asyncio.run(main())
"""


def test_a_restored_file_is_what_it_was_when_it_was_kept(tmp_path):
    """Nothing that was written since comes back, though SQLite's log of it has stayed, and another process reads it.

    Who notices later has lost nothing of what was written meanwhile.
    """
    path, kept = tmp_path / "keys.sqlite", tmp_path / "kept.sqlite"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}

    async def work():
        store = sqlite_store(path)
        await store.add(KEY)
        await store.aclose()  # by that all of it is in the one file
        shutil.copy(path, kept)
        await store.add(replace(KEY, id="newkey00"))
        other = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLDER, str(path), **pipes)
        try:
            assert b"newkey00" in await other.stdout.readline()
            kept.replace(path)
            assert [key.id for key in await store.keys()] == [KEY.id]
            await store.revoke(KEY.id, NOW)
        finally:
            found, _ = await other.communicate(b"go\n\n")
        assert found.decode() == f"{(KEY.id, NOW)}\n"
        assert [key.id for key in await store.keys()] == [KEY.id]
        await store.aclose()

    asyncio.run(work())


def test_a_file_that_cannot_be_used_is_said(tmp_path, caplog):
    """To whoever reads the log with the file's name, to the client without."""
    path = tmp_path / "keys.sqlite"
    path.write_bytes(b"this is not a file of SQLite's" * 100)
    with pytest.raises(KeyStoreUnavailable, match="cannot be looked up now"):
        asyncio.run(sqlite_store(path).find("a"))
    assert f"{path} cannot be read or written" in caplog.text


@pytest.mark.parametrize("version", [1, 3])
def test_a_file_of_another_version_is_refused_and_left_as_it_is(tmp_path, version, caplog):
    """What its tables mean is not known here."""
    path = tmp_path / "keys.sqlite"
    db = sqlite3.connect(path)
    db.executescript(f"CREATE TABLE places (a); PRAGMA user_version = {version};")
    before = path.read_bytes()
    with pytest.raises(KeyStoreUnavailable, match="cannot be looked up now"):
        asyncio.run(sqlite_store(path).find("a"))
    assert f"{path} cannot be read or written: it is of version {version}, and this release reads 2" in caplog.text
    assert path.read_bytes() == before
    db.close()


def test_a_file_of_somebody_else_s_is_refused(tmp_path, caplog):
    """It says no version, as a new one does, but has tables."""
    path = tmp_path / "keys.sqlite"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE keys (id TEXT)")
    db.close()
    with pytest.raises(KeyStoreUnavailable, match="cannot be looked up now"):
        asyncio.run(sqlite_store(path).find("a"))
    assert "table keys already exists" in caplog.text


def test_old_sessions_are_forgotten_and_keys_are_not(tmp_path):
    """While the file is in use, with the places that nobody gave back; what a key has used is kept for ever."""
    path = tmp_path / "keys.sqlite"

    async def work():
        store = sqlite_store(path)
        for name, at in (("session:old", NOW), ("key:a", NOW), ("session:new", NOW + 3 * DAY_S)):
            await store.reserve(name, QUOTA, place(1, at), at)
        return store

    store = asyncio.run(work())
    db = sqlite3.connect(path)
    assert {name for (name,) in db.execute("SELECT name FROM accounts")} == {"key:a", "session:new"}
    assert [name for (name,) in db.execute("SELECT account FROM places")] == ["session:new"]
    asyncio.run(store.aclose())
    db.close()


PROCESS = """
import asyncio, sys
from pathlib import Path
from functions.backend.adapters.sqlite_key_store import SQLiteKeyStore
from functions.backend.domain.account import Place
from functions.backend.domain.errors import QuotaExceeded
from functions.backend.domain.quota import Quota

async def main():
    store, admitted = SQLiteKeyStore(Path(sys.argv[1])), 0
    await store.find("a")
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(300):
        try:
            place = Place.at(1.8e9, f"{sys.argv[2]}-{number}", 1, 330)
            await store.reserve("key:a", Quota(tokens_per_minute=400), place, 1.8e9)
            admitted += 1
        except QuotaExceeded:
            pass
    await store.aclose()
    print(admitted)

asyncio.run(main())
"""


def test_two_processes_share_a_file(tmp_path):
    """Together they take what one account has, to the token."""
    command = [sys.executable, "-c", PROCESS, str(tmp_path / "keys.sqlite")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([*command, name], **pipes) for name in "ab"]
    # Both have imported and opened all by then, and go at once.
    assert [process.stdout.readline() for process in started] == ["ready\n"] * 2
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert sum(map(int, said)) == 400


def broken_transport(answers, asked):
    """A transport that tells these answers in turn, or raises them, and notes what it is asked."""
    told = iter(answers)

    def answer(request):
        asked.append(json.loads(request.content))
        each = next(told)
        if isinstance(each, Exception):
            raise each
        return each

    return httpx.MockTransport(answer)


ENVIRON = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
THROTTLED = httpx.Response(400, json={"__type": "com.amazonaws.dynamodb#ThrottlingException", "message": "slow"})
FAILED = httpx.Response(500, json={"__type": "com.amazonaws.dynamodb#InternalServerError"})
DONE = httpx.Response(200, json={"Attributes": {"pk": {"S": "a"}}})


def db_of(monkeypatch, answers, work):
    """What the work gives with a table that answers so, and what the table was asked."""
    asked, connect = [], httpx.AsyncClient
    transport = broken_transport(answers, asked)
    with monkeypatch.context() as patch:
        patch.setattr("functions.backend.adapters.dynamodb._FIRST_PAUSE_S", 0.0)
        patch.setattr(httpx, "AsyncClient", lambda **given: connect(**given, transport=transport))
        return asyncio.run(work(DynamoDB(TABLE, REGION, ENVIRON))), asked


def ask_through(monkeypatch, answers):
    """What an update gives when these are the answers to it."""

    async def update(db):
        return await db.update("a", "b", "SET c = :d", "e", {}, {":d": 1})

    return db_of(monkeypatch, answers, update)[0]


def batch(*found, left=()):
    """An answer to BatchGetItem that has found some items and leaves others for another time."""
    items = [{"pk": {"S": name}, "sk": {"S": "account"}, "requests": {"N": "1"}} for name in found]
    keys = [{"pk": {"S": name}, "sk": {"S": "account"}} for name in left]
    unprocessed = {TABLE: {"Keys": keys, "ConsistentRead": True}} if keys else {}
    return httpx.Response(200, json={"Responses": {TABLE: items}, "UnprocessedKeys": unprocessed})


def test_items_are_read_a_hundred_at_a_time(monkeypatch):
    """A list of keys costs a few questions, and each says that it wants the items as they are now."""

    async def get(db):
        return await db.get_many([(f"key:{number}", "account") for number in range(250)])

    _, asked = db_of(monkeypatch, [batch()] * 3, get)
    assert [len(each["RequestItems"][TABLE]["Keys"]) for each in asked] == [100, 100, 50]
    assert all(each["RequestItems"][TABLE]["ConsistentRead"] for each in asked)


def test_what_a_table_leaves_out_is_asked_for_again(monkeypatch):
    """And nothing but that."""

    async def get(db):
        return await db.get_many([(name, "account") for name in "abc"])

    answers = [batch("b", left="ac"), batch(left="ac"), batch("c", left="a"), batch("a")]
    found, asked = db_of(monkeypatch, answers, get)
    assert {pk: item["requests"] for (pk, _), item in found.items()} == {"a": 1, "b": 1, "c": 1}
    keys = [[key["pk"]["S"] for key in each["RequestItems"][TABLE]["Keys"]] for each in asked]
    assert keys == [["a", "b", "c"], ["a", "c"], ["a", "c"], ["a"]]


def test_a_table_that_goes_on_leaving_out_is_not_asked_for_ever(monkeypatch, caplog):
    """What is left of a list would be taken for all of it."""

    async def get(db):
        return await db.get_many([("a", "account")])

    with pytest.raises(KeyStoreUnavailable, match="cannot be looked up now"):
        db_of(monkeypatch, [batch(left="a")] * 100, get)
    assert f"BatchGetItem on the table {TABLE}" in caplog.text
    assert "1 items were left out" in caplog.text


@pytest.mark.parametrize("first", [THROTTLED, FAILED, httpx.ReadTimeout("late"), httpx.ConnectError("away")])
def test_what_passes_is_tried_again(monkeypatch, first):
    """A table that is busy, or a connection that breaks, is nothing that a reader has to hear of."""
    assert ask_through(monkeypatch, [first, DONE]) == {"pk": "a"}


def test_what_was_done_is_not_added_again(monkeypatch, dynamodb):
    """An answer that is lost on its way is asked for again: what it took is taken once, and counted once."""
    connect = httpx.AsyncClient

    class LosesEveryOther(httpx.AsyncHTTPTransport):
        asked = 0

        async def handle_async_request(self, request):
            answer = await super().handle_async_request(request)
            LosesEveryOther.asked += 1
            if LosesEveryOther.asked % 2:
                await answer.aread()
                raise httpx.ReadTimeout("late")
            return answer

    async def work():
        store, account = key_store_named(f"dynamodb:{TABLE}", REGION, dynamodb), f"key:lost-{next(_numbers)}"
        try:
            held = place(60)
            await store.reserve(account, QUOTA, held, NOW)
            assert remaining(await store.settle(account, held, USAGE, NOW)) == [74, 124, 2]
            assert LosesEveryOther.asked == 4
            assert await store.totals([account]) == [USAGE]
        finally:
            await store.aclose()

    monkeypatch.setattr("functions.backend.adapters.dynamodb._FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(httpx, "AsyncClient", lambda **given: connect(**given, transport=LosesEveryOther()))
    asyncio.run(work())


def test_a_table_that_is_away_is_said_without_its_name(monkeypatch, caplog):
    """The client learns when to come back, the log what is wrong."""
    missing = httpx.Response(400, json={"__type": "x#ResourceNotFoundException", "message": "no such table"})
    with pytest.raises(KeyStoreUnavailable) as error:
        ask_through(monkeypatch, [missing])
    assert TABLE not in error.value.message
    assert f"UpdateItem on the table {TABLE}" in caplog.text
    assert "no such table" in caplog.text
