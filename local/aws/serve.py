"""A local AWS in one process: moto, with the checkpoints of a folder in a bucket.

Those that are there at the start are in it before the first request is heard; one that comes later, or is trained
further, when it is asked for.
"""

import logging
import math
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from moto.s3.models import S3Backend

# That of everybody at moto.
ACCOUNT = "123456789012"
BUCKET = "huginn-ckpts"
REGION = "eu-west-1"
CKPTS = Path("/ckpts")
HOST, PORT = "0.0.0.0", 5000  # noqa: S104 - the other containers ask
# Where the kernel says what this container may take, in either version of its control groups.
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
MB = 1 << 20
# moto itself takes some 120.
FOR_THE_PROCESS = 256 * MB


def main() -> None:
    """Serve until a signal says otherwise."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # A line for every health check would hide all others.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from moto.s3.models import s3_backends
    from werkzeug.serving import run_simple

    checkpoints = Checkpoints(s3_backends[ACCOUNT]["aws"], CKPTS, memory_limit(LIMITS) - FOR_THE_PROCESS)
    checkpoints.bring_all()
    app = looking_again(checkpoints, DomainDispatcherApplication(create_backend_app))
    run_simple(HOST, PORT, one_at_a_time(app), threaded=True)


def memory_limit(files: Iterable[Path]) -> float:
    """Give how many bytes this container may take, by the first of ``files`` that is there; infinity if none is."""
    for file in files:
        if file.exists():
            text = file.read_text("ascii").strip()
            return math.inf if text == "max" else int(text)
    return math.inf


def one_at_a_time(app: Callable[..., Any]) -> Callable[..., Any]:
    """Give a WSGI app that answers one request after another; what it answers is sent side by side.

    moto holds a whole object in memory to answer with a range of it, and clients ask for many ranges at once.
    """
    turn = threading.Lock()

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        with turn:
            return app(environ, start_response)

    return answer


def looking_again(checkpoints: "Checkpoints", app: Callable[..., Any]) -> Callable[..., Any]:
    """Give a WSGI app that brings the checkpoint an object of which is read, before it answers."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        bucket, _, key = environ["PATH_INFO"].removeprefix("/").partition("/")
        name, _, file = key.partition("/")
        if bucket == BUCKET and file and environ["REQUEST_METHOD"] in {"GET", "HEAD"}:
            checkpoints.bring(name)
        return app(environ, start_response)

    return answer


class Checkpoints:
    """Puts checkpoints into the bucket that it makes, each under its own name.

    One that cannot be read, or that does not fit, is left out and named on stderr.

    Args:
        s3: moto's.
        folder: where they are.
        room: how many bytes all objects may take, and besides them the largest, which is read to be sent.
    """

    def __init__(self, s3: "S3Backend", folder: Path, room: float) -> None:
        self._s3 = s3
        self._folder = folder
        self._room = room
        # Of the files of each in the bucket: size, and time of change.
        self._brought: dict[str, dict[str, tuple[int, int]]] = {}
        self._said: dict[Path, str] = {}
        s3.create_bucket(BUCKET, REGION)

    def bring_all(self) -> None:
        """Put those that are there into the bucket."""
        try:
            # Not a pattern, which would pass over what cannot be looked into.
            names = sorted(path.name for path in self._folder.iterdir())
        except OSError as error:
            self._leave_out(self._folder, f"{error}; {_READABLE}")
        else:
            for name in names:
                self.bring(name)

    def bring(self, name: str) -> None:
        """Put one into the bucket, if there is such a one and the bucket does not have it as it is."""
        checkpoint = self._folder / name
        # A hidden folder is a checkpoint that is still being written.
        if not name or name.startswith(".") or not _may_be_one(checkpoint):
            return
        try:
            with ExitStack() as opened:
                # All of them, before any is in the bucket: half a checkpoint is none.
                paths = sorted(path for path in checkpoint.iterdir() if path.is_file())
                files = {path.name: opened.enter_context(path.open("rb")) for path in paths}
                stats = {file: os.fstat(opened_file.fileno()) for file, opened_file in files.items()}
                found = {file: (stat.st_size, stat.st_mtime_ns) for file, stat in stats.items()}
                if found == self._brought.get(name):
                    return
                held = (self._brought | {name: found}).values()
                sizes = [size for brought in held for size, _ in brought.values()]
                wanted = sum(sizes) + max(sizes, default=0)
                if wanted > self._room:
                    limit = -(-(wanted + FOR_THE_PROCESS) // MB)
                    self._leave_out(checkpoint, f"it does not fit into the memory; set HUGINN_AWS_MEMORY={limit}m")
                    return
                self._drop(name)
                for file, content in files.items():
                    _put(self._s3, f"{name}/{file}", content)
                self._brought[name] = found
        except OSError as error:
            self._leave_out(checkpoint, f"{error}; {_READABLE}")
            return
        self._said.pop(checkpoint, None)
        print(f"s3://{BUCKET}/{name}", flush=True)

    def _drop(self, name: str) -> None:
        self._brought.pop(name, None)
        for key in [key for key in self._s3.get_bucket(BUCKET).keys if key.startswith(f"{name}/")]:
            self._s3.delete_object(BUCKET, key)

    def _leave_out(self, checkpoint: Path, why: str) -> None:
        # Who waits for it asks again and again.
        if self._said.get(checkpoint) != why:
            print(f"{checkpoint} is not in s3://{BUCKET}: {why}", file=sys.stderr, flush=True)
            self._said[checkpoint] = why


_READABLE = "nobody in a container is its owner: chmod -R a+rX"


def _may_be_one(path: Path) -> bool:
    try:
        (path / "config.json").stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        # The last of them: by such a name there cannot be any.
        return False
    except OSError:
        # What is wrong with it is said where it is read.
        return True
    return True


def _put(s3: "S3Backend", name: str, file: BinaryIO) -> None:
    # Not over HTTP, in whose pieces moto takes a minute for what this does in a second; nor as one value, of which
    # there would be three in memory for a while.
    key = s3.put_object(BUCKET, name, b"")
    shutil.copyfileobj(file, key._value_buffer, MB)
    key.contentsize = key._value_buffer.tell()


if __name__ == "__main__":
    main()
