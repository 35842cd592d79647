"""One large object of S3 as a file: in ranges that are read at the same time, from where it was cut off, and hashed."""

import hashlib
import json
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PART_BYTES = 8 << 20
WORKERS = 8
"""One connection to S3 brings some 50 to 100 MB/s; so many fill the network of most machines."""

PIECE_BYTES = HASHED_BYTES = 1 << 18
ATTEMPTS = 5
"""How often in a row a part may bring nothing before the download is given up."""

FIRST_PAUSE_S = 0.1
TICK_S = 0.1

Progress = Callable[[int, int], None]
"""Hears how many bytes are there, and of how many."""


class ObjectChangedError(Exception):
    """The object was replaced while it was being read."""


class DownloadStoppedError(Exception):
    """Somebody asked to stop; what has arrived is kept."""


class NoRangesError(Exception):
    """The server answered something else than the range it was asked for; the message says what."""


@dataclass(frozen=True)
class S3Object:
    """One state of an object: were it replaced, its ETag would be another.

    Args:
        bucket: its bucket.
        key: its key.
        etag: as S3 says it.
        size_bytes: its size.
    """

    bucket: str
    key: str
    etag: str
    size_bytes: int


def download(
    s3: Any, source: S3Object, target: Path, journal: Path, *, progress: Progress, stopping: threading.Event
) -> str:
    """Bring ``source`` into the file ``target``, and return its SHA-256, hexadecimal.

    Args:
        s3: botocore's client.
        source: what to read, and only that: never a mixture with what replaced it.
        target: is made, or gone on with if ``journal`` says that it is the same object's.
        journal: which parts are in ``target``; both are needed to go on after a download that was cut off.
        progress: is called from this thread, now and then.
        stopping: ends the download when it is set.

    Raises:
        ObjectChangedError: there is another object under the key now.
        DownloadStoppedError: ``stopping`` was set.
        NoRangesError: this is no S3.
        OSError: it cannot be written; the disk may be full.
        botocore's errors: it cannot be read.
    """
    with _Parts.opened(source, journal) as parts:
        if not parts.whole or not target.exists() or target.stat().st_size != source.size_bytes:
            # A new file, not the old one emptied: a thread of a download that was given up may still write to that.
            target.unlink(missing_ok=True)
            target.touch()
            os.truncate(target, source.size_bytes)
            parts.forget()
        return _Download(s3, source, target, parts, stopping).run(progress)


def bytes_on_disk(source: S3Object, journal: Path) -> int:
    """Return how much of ``source`` an earlier download has left."""
    with _Parts.opened(source, journal) as parts:
        return sum(parts.size(index) for index in parts.whole)


class _Parts:
    """Which parts of an object are there: a file with what the object is in its first line, then a byte for each."""

    def __init__(self, source: S3Object, file: int) -> None:
        self._size_bytes = source.size_bytes
        self._head = json.dumps([source.key, source.etag, source.size_bytes, PART_BYTES]).encode() + b"\n"
        self._file = file
        self.count = -(-source.size_bytes // PART_BYTES)
        content = os.pread(file, len(self._head) + self.count, 0)
        marks = content[len(self._head) :] if content.startswith(self._head) else b""
        self.whole = {index for index, mark in enumerate(marks) if mark}
        if not content.startswith(self._head):
            self.forget()

    @classmethod
    @contextmanager
    def opened(cls, source: S3Object, journal: Path) -> "Iterator[_Parts]":
        file = os.open(journal, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            yield cls(source, file)
        finally:
            os.close(file)

    def begin(self, index: int) -> int:
        return index * PART_BYTES

    def size(self, index: int) -> int:
        return min(PART_BYTES, self._size_bytes - self.begin(index))

    def forget(self) -> None:
        self.whole = set()
        os.truncate(self._file, 0)
        os.pwrite(self._file, self._head, 0)

    def mark(self, index: int) -> None:
        self.whole.add(index)
        os.pwrite(self._file, b"\1", len(self._head) + index)


class _Download:
    def __init__(self, s3: Any, source: S3Object, target: Path, parts: _Parts, stopping: threading.Event) -> None:
        self._s3, self._source, self._target, self._parts = s3, source, target, parts
        self._stopping = stopping
        self._over = threading.Event()
        self._changed = threading.Condition()
        self._arrived = sum(parts.size(index) for index in parts.whole)
        self._error: Exception | None = None
        self._missing: queue.SimpleQueue[int] = queue.SimpleQueue()
        for index in range(parts.count):
            if index not in parts.whole:
                self._missing.put(index)

    def run(self, progress: Progress) -> str:
        """Return the digest, of what other threads bring."""
        # Daemons: who has pressed Ctrl-C does not wait for what the network still owes a thread.
        workers = min(WORKERS, self._missing.qsize())
        for number in range(workers):
            threading.Thread(target=self._work, name=f"download {number}", daemon=True).start()
        hashed = hashlib.sha256()
        try:
            # Unbuffered: a buffer would read ahead, of parts that are not there yet.
            with self._target.open("rb", buffering=0) as file:
                for index in range(self._parts.count):
                    self._wait_for(index, progress)
                    left = self._parts.size(index)
                    while left and (piece := file.read(min(left, HASHED_BYTES))):
                        hashed.update(piece)
                        left -= len(piece)
            progress(self._source.size_bytes, self._source.size_bytes)
            return hashed.hexdigest()
        finally:
            # Under the lock: no thread is just about to write to the journal, which is closed next.
            with self._changed:
                self._over.set()

    def _wait_for(self, index: int, progress: Progress) -> None:
        with self._changed:
            while True:
                if self._error is not None:
                    raise self._error
                if self._stopping.is_set():
                    raise DownloadStoppedError
                if index in self._parts.whole:
                    return
                progress(self._arrived, self._source.size_bytes)
                self._changed.wait(TICK_S)

    def _work(self) -> None:
        try:
            file = os.open(self._target, os.O_WRONLY)
            try:
                while not self._over.is_set():
                    try:
                        index = self._missing.get_nowait()
                    except queue.Empty:
                        return
                    if self._bring(index, file):
                        self._mark(index)
            finally:
                os.close(file)
        except Exception as error:  # noqa: BLE001 - the thread that waits raises it
            with self._changed:
                self._error = self._error or error
                self._changed.notify()

    def _mark(self, index: int) -> None:
        with self._changed:
            # After the end the journal is closed, and its number may be another file's.
            if not self._over.is_set():
                self._parts.mark(index)
                self._changed.notify()

    def _bring(self, index: int, file: int) -> bool:
        """Return whether the part is in the file: not if all was over before."""
        from botocore.exceptions import BotoCoreError

        at, end = self._parts.begin(index), self._parts.begin(index) + self._parts.size(index)
        failures = 0
        while at < end:
            before = at
            try:
                for piece in self._range(at, end):
                    os.pwrite(file, piece, at)
                    at += len(piece)
                    with self._changed:
                        self._arrived += len(piece)
                    if self._over.is_set():
                        return False
            except BotoCoreError:
                # The client has tried to connect again already; this is a connection that broke while it was read.
                failures = 0 if at > before else failures + 1
                if failures == ATTEMPTS:
                    raise
                if self._over.wait(FIRST_PAUSE_S * 2**failures):
                    return False
        return True

    def _range(self, begin: int, end: int) -> Iterator[bytes]:
        from botocore.exceptions import ClientError, IncompleteReadError

        source = self._source
        wanted = f"bytes {begin}-{end - 1}/{source.size_bytes}"
        try:
            answer = self._s3.get_object(
                Bucket=source.bucket, Key=source.key, IfMatch=source.etag, Range=f"bytes={begin}-{end - 1}"
            )
        except ClientError as error:
            # 412: another ETag. 416: it has become shorter than the range. 404: it was removed.
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in {404, 412, 416}:
                raise ObjectChangedError from error
            raise
        with _closed_at_the_end(answer["Body"]) as body:
            if (found := answer.get("ContentRange")) != wanted:
                raise NoRangesError(f"asked for {wanted}, it answered {found}")
            left = end - begin
            while left and (piece := body.read(min(left, PIECE_BYTES))):
                left -= len(piece)
                yield piece
            if left:
                raise IncompleteReadError(actual_bytes=end - begin - left, expected_bytes=end - begin)
            # Only the read after the last byte tells the connection that it may be used again; nothing comes of it.
            body.read(1)


@contextmanager
def _closed_at_the_end(body: Any) -> Iterator[Any]:
    try:
        yield body
    finally:
        body.close()
