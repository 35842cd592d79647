"""Keys and accounts in a file, which several processes may use at the same time: the backend and `huginn keys`."""

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, fields
from pathlib import Path
from typing import TypeVar

from functions.backend.domain.account import DAY_S, Account, Place
from functions.backend.domain.errors import KeyStoreUnavailable
from functions.backend.domain.key import Key
from functions.backend.domain.quota import Quota
from functions.backend.domain.usage_total import UsageTotal

T = TypeVar("T")
# Of a file, whatever its name is: no other has it while somebody holds that one open.
_Identity = tuple[int, int]

_log = logging.getLogger(__name__)

# Another process holds the file for some microseconds; who waits longer than this is told to come back.
_BUSY_S = 5.0
# A session is over after a quarter of an hour, and its quota after a day.
_FORGET_SESSIONS_S = 2 * DAY_S
_CLEAN_EVERY_S = 3600.0
_VERSION = 2
_TOTALS = tuple(each.name for each in fields(UsageTotal))
_SCHEMA = f"""
CREATE TABLE keys (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, digest BLOB NOT NULL, scopes TEXT NOT NULL, created REAL NOT NULL,
    tokens_per_minute INTEGER, tokens_per_day INTEGER, concurrency INTEGER, expires REAL, revoked REAL
);
CREATE TABLE accounts (
    name TEXT PRIMARY KEY, minute INTEGER NOT NULL, minute_tokens INTEGER NOT NULL,
    day INTEGER NOT NULL, day_tokens INTEGER NOT NULL, used REAL NOT NULL,
    {", ".join(f"{name} REAL NOT NULL DEFAULT 0" for name in _TOTALS)}
);
CREATE TABLE places (
    account TEXT NOT NULL, name TEXT NOT NULL, tokens INTEGER NOT NULL, minute INTEGER NOT NULL, day INTEGER NOT NULL,
    until REAL NOT NULL, PRIMARY KEY (account, name)
) WITHOUT ROWID;
PRAGMA user_version = {_VERSION};
"""


class SQLiteKeyStore:
    """A KeyStore in the file at `path`, which is made, readable by its owner alone, when it is first needed.

    One thread works at it, so that the event loop never waits for a disk.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: _OpenFile | None = None
        self._cleaned = 0.0

    async def find(self, key_id: str) -> Key | None:
        """Give the key of that id; see the port."""

        def find(db: sqlite3.Connection) -> Key | None:
            row = db.execute("SELECT * FROM keys WHERE id = ?", (key_id,)).fetchone()
            return _key(row) if row else None

        return await self._run(find)

    async def add(self, key: Key) -> bool:
        """Keep a new key; see the port."""
        scopes = " ".join(sorted(key.scopes))
        row = (key.id, key.name, key.digest, scopes, key.created, *astuple(key.quota), key.expires, key.revoked)
        holes = ", ".join("?" * len(row))
        insert = f"INSERT INTO keys VALUES ({holes}) ON CONFLICT DO NOTHING"  # noqa: S608  nothing but question marks
        return await self._run(lambda db: db.execute(insert, row).rowcount == 1)

    async def revoke(self, key_id: str, now: float) -> bool:
        """Let the key's holder in no more; see the port."""
        update = "UPDATE keys SET revoked = coalesce(revoked, ?) WHERE id = ?"
        return await self._run(lambda db: db.execute(update, (now, key_id)).rowcount == 1)

    async def keys(self) -> Sequence[Key]:
        """Give all keys; see the port."""
        return await self._run(lambda db: [_key(row) for row in db.execute("SELECT * FROM keys ORDER BY created, id")])

    async def reserve(self, account: str, quota: Quota, place: Place, now: float) -> Account:
        """Take the place and its tokens; see the port."""

        def reserve(db: sqlite3.Connection) -> Account:
            with _transaction(db):
                if not now - _CLEAN_EVERY_S < self._cleaned <= now:
                    self._cleaned = now
                    _clean(db, now)
                after = _account(db, account).admit(quota, place, now)
                _keep(db, account, after, now)
                db.execute("DELETE FROM places WHERE account = ? AND until <= ?", (account, now))
                taken = after.places[place.name]
                db.execute("INSERT INTO places VALUES (?, ?, ?, ?, ?, ?)", (account, *astuple(taken)))
            return after

        return await self._run(reserve)

    async def renew(self, account: str, name: str, until: float) -> bool:
        """Have the place last longer; see the port."""
        update = "UPDATE places SET until = ? WHERE account = ? AND name = ?"
        return await self._run(lambda db: db.execute(update, (until, account, name)).rowcount == 1)

    async def settle(self, account: str, place: Place, usage: UsageTotal, now: float) -> Account:
        """Give the place back; see the port."""
        added = ", ".join(f"{name} = {name} + ?" for name in _TOTALS)
        update = f"UPDATE accounts SET {added} WHERE name = ?"  # noqa: S608  the names are a dataclass's

        def settle(db: sqlite3.Connection) -> Account:
            with _transaction(db):
                before = _account(db, account)
                after = before.settle(place, usage.tokens)
                if place.name in before.places:
                    _keep(db, account, after, now)
                    db.execute("DELETE FROM places WHERE account = ? AND name = ?", (account, place.name))
                    db.execute(update, (*astuple(usage), account))
            return after.at(now)

        return await self._run(settle)

    async def totals(self, accounts: Sequence[str]) -> Sequence[UsageTotal]:
        """Give what each of these accounts has used; see the port."""
        select = f"SELECT {', '.join(_TOTALS)} FROM accounts WHERE name = ?"  # noqa: S608  the names are a dataclass's

        def totals(db: sqlite3.Connection) -> list[UsageTotal]:
            rows = [db.execute(select, (account,)).fetchone() for account in accounts]
            return [_total(row) if row else UsageTotal() for row in rows]

        return await self._run(totals)

    async def aclose(self) -> None:
        """Close the file; a later call opens it again."""
        file, self._file = self._file, None
        if file is not None:
            await file.aclose()

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._file is None:
            self._file = _OpenFile(self._path)
        return await self._file.run(work)


class _OpenFile:
    """A connection to the file that stands at the path, and the one thread that may use it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="key store")
        self._connection: sqlite3.Connection | None = None
        self._opened: _Identity | None = None
        self._opened_log: _Identity | None = None

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, work)

    async def aclose(self) -> None:
        """Close it after all that was asked of it."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return work(self._live_connection())
        except (sqlite3.Error, OSError) as error:
            # The client is not told where our files are.
            _log.warning("%s cannot be read or written: %s", self._path, error)
            raise KeyStoreUnavailable("The keys cannot be looked up now. Try again.") from error

    def _live_connection(self) -> sqlite3.Connection:
        """Give one to the file that has the name now: who removes or replaces the store has taken its keys back."""
        if self._connection is not None and _identity(self._path) != self._opened:
            _log.warning("%s is another file than before, and is opened anew", self._path)
            self._close()
            log, index = _beside(self._path)
            if self._opened_log is not None and _identity(log) == self._opened_log:
                # Only SQLite's part of the old file has stayed, and would be read as a part of the new one.
                log.unlink(missing_ok=True)
                index.unlink(missing_ok=True)
        if self._connection is None:
            # Before it is opened: if it is replaced at this moment, that is noticed next time.
            self._opened = _make_file(self._path)
            self._connection = _open(self._path)
            self._opened_log = _identity(_beside(self._path)[0])
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _identity(path: Path) -> _Identity | None:
    try:
        return _identity_in(os.stat(path))  # noqa: PTH116 - before every piece of work, at half of Path's price
    except FileNotFoundError:
        return None


def _identity_in(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino


def _beside(path: Path) -> tuple[Path, Path]:
    """Give the two files that SQLite keeps beside one: the log of what was written last, and the log's index."""
    return path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


def _make_file(path: Path) -> _Identity:
    """Give the file at the path, which is made if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # SQLite gives its other two files the same mode.
    opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        return _identity_in(os.fstat(opened))
    finally:
        os.close(opened)


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
    try:
        [found] = db.execute("PRAGMA user_version").fetchone()
        if found not in (0, _VERSION):
            raise sqlite3.DatabaseError(f"it is of version {found}, and this release reads {_VERSION}")
        # Readers and the writer do not wait for each other. What a power cut may lose is a second's accounts.
        _set_journal(db)
        db.execute("PRAGMA synchronous = NORMAL")
        if not found:
            _make_tables(db)
    except BaseException:
        db.close()
        raise
    return db


def _make_tables(db: sqlite3.Connection) -> None:
    """Make a new file's tables, unless another process has done so meanwhile."""
    with _transaction(db):
        [found] = db.execute("PRAGMA user_version").fetchone()
        if not found:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                db.execute(statement)


def _clean(db: sqlite3.Connection, now: float) -> None:
    """Forget the sessions that nobody comes back to, and places that nobody gave back: no window is theirs any more."""
    db.execute("DELETE FROM accounts WHERE name LIKE 'session:%' AND used < ?", (now - _FORGET_SESSIONS_S,))
    db.execute("DELETE FROM places WHERE until < ?", (now - DAY_S,))


def _set_journal(db: sqlite3.Connection) -> None:
    """Switch to the write-ahead log. For that switch alone, and only in a new file, SQLite itself waits for nobody."""
    until = time.monotonic() + _BUSY_S
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Let nobody else write before the end; what raises has changed nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _account(db: sqlite3.Connection, name: str) -> Account:
    row = db.execute("SELECT minute, minute_tokens, day, day_tokens FROM accounts WHERE name = ?", (name,)).fetchone()
    held = db.execute("SELECT name, tokens, minute, day, until FROM places WHERE account = ?", (name,))
    places = {place.name: place for place in (Place(*found) for found in held)}
    minute, minute_tokens, day, day_tokens = row or (0, 0, 0, 0)
    return Account(minute, minute_tokens, day, day_tokens, places)


def _keep(db: sqlite3.Connection, name: str, account: Account, now: float) -> None:
    db.execute(
        "INSERT INTO accounts (name, minute, minute_tokens, day, day_tokens, used) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET minute = excluded.minute, minute_tokens = excluded.minute_tokens, "
        "day = excluded.day, day_tokens = excluded.day_tokens, used = excluded.used",
        (name, account.minute, account.minute_tokens, account.day, account.day_tokens, now),
    )


def _key(
    row: tuple[str, str, bytes, str, float, int | None, int | None, int | None, float | None, float | None],
) -> Key:
    key_id, name, digest, scopes, created, minute, day, concurrency, expires, revoked = row
    quota = Quota(minute, day, concurrency)
    return Key(key_id, name, digest, frozenset(scopes.split()), created, quota, expires, revoked)


def _total(row: Sequence[float]) -> UsageTotal:
    requests, prompt, cached, completion, *rest = row
    return UsageTotal(int(requests), int(prompt), int(cached), int(completion), *rest)
