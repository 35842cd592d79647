"""What the tiers of `huginn up` have said, kept in the user's state folder: bounded, and of the last few runs."""

import fcntl
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from local.access import state_folder

KEPT_RUNS = 5
# Of each run two of these, the older one named .1: the last of a long run is what is looked for.
MAX_BYTES = 8 << 20
POLL_S = 0.2


def logs_folder(environ: Mapping[str, str]) -> Path:
    """Give where this user's logs are kept."""
    return state_folder(environ) / "logs"


class KeptLog:
    """The file of one run; older runs' files beyond KEPT_RUNS go when it begins. Nobody else may read it."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        """Begin a file in ``folder``; OSError if that cannot be."""
        for run in runs(folder)[: -(KEPT_RUNS - 1)]:
            if not is_running(run):
                for path in (_older(run), run):
                    path.unlink(missing_ok=True)
        self._path = folder / f"up-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{os.getpid()}.jsonl"
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._has_ended = False
        self._file: FileIO | None = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._has_ended = True
            self._let_go()

    def write(self, line: str) -> None:
        """Keep a line, and raise nothing: that a disk is full or a folder was tidied away must not end what is logged.

        As soon as there is a place again, what comes then is kept.
        """
        # What UTF-8 cannot say is said as JSON would say it.
        said = f"{line}\n".encode(errors="backslashreplace")
        with self._lock, suppress(OSError):
            if self._has_ended:
                return
            if self._file is not None and os.fstat(self._file.fileno()).st_nlink == 0:
                self._let_go()
            self._file = self._file or self._open()
            self._file.write(said)
            if os.fstat(self._file.fileno()).st_size >= self._max_bytes:
                self._let_go()
                self._path.replace(_older(self._path))
                self._file = self._open()

    def _let_go(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _open(self) -> FileIO:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Without a buffer: after a failure nothing is left in it that would fail once more.
        file = FileIO(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w")
        # Says for as long as we live that we do, which a pid does not: it may be another's by tomorrow.
        with suppress(OSError):  # a network's file system may have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        return file


def runs(folder: Path) -> list[Path]:
    """Give the files of the runs, the latest last."""
    return sorted(path for path in folder.glob("up-*-*.jsonl"))


def is_running(run: Path) -> bool:
    """Say whether the process that writes the file is alive."""
    with suppress(OSError), run.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def read_run(run: Path) -> Iterator[str]:
    """Yield what is kept of a run."""
    for path in (_older(run), run):
        with suppress(FileNotFoundError), path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            yield from (line.rstrip("\n") for line in file)


def follow_latest(folder: Path) -> Iterator[list[str]]:
    """Yield what is kept of the latest run and then, every POLL_S, what has come; a run that begins later takes over.

    Without end; an empty list says that there was nothing new.
    """
    run: Path | None = None
    file: TextIO | None = None
    try:
        while True:
            lines: list[str] = []
            latest = next(reversed(runs(folder)), None)
            if latest is not None and (run is None or latest > run):
                if file is not None:
                    lines += _complete_lines(file)
                    file.close()
                run, file = latest, None
                with suppress(FileNotFoundError):
                    lines += _older(run).read_text("utf-8", "replace").split("\n")[:-1]
            if run is not None:
                file = file or _opened(run)
                while file is not None:
                    lines += _complete_lines(file)
                    if not _was_replaced(run, file):
                        break
                    file.close()
                    file = _opened(run)
            yield lines
            time.sleep(POLL_S)
    finally:
        if file is not None:
            file.close()


def _older(run: Path) -> Path:
    return run.with_suffix(".jsonl.1")


def _opened(path: Path) -> TextIO | None:
    try:
        return path.open(encoding="utf-8", errors="replace", newline="\n")
    except FileNotFoundError:
        return None


def _complete_lines(file: TextIO) -> list[str]:
    lines: list[str] = []
    while True:
        place = file.tell()
        line = file.readline()
        if not line.endswith("\n"):
            file.seek(place)
            return lines
        lines.append(line[:-1])


def _was_replaced(path: Path, file: TextIO) -> bool:
    try:
        return path.stat().st_ino != os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False
