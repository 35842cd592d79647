"""A local AWS in one process: moto, with the checkpoints of a folder in a bucket before the first request is heard."""

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

    fill(s3_backends[ACCOUNT]["aws"], CKPTS, memory_limit(LIMITS) - FOR_THE_PROCESS)
    run_simple(HOST, PORT, one_at_a_time(DomainDispatcherApplication(create_backend_app)), threaded=True)


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


def fill(s3: "S3Backend", folder: Path, room: float) -> None:
    """Make the bucket, and put every checkpoint of a folder into it under the checkpoint's name.

    One that cannot be read, or that does not fit, is left out and named on stderr.

    Args:
        s3: moto's.
        folder: of checkpoints.
        room: how many bytes all objects may take, and besides them the largest, which is read to be sent.
    """
    s3.create_bucket(BUCKET, REGION)
    held = largest = 0
    for checkpoint in _checkpoints(folder):
        try:
            with ExitStack() as opened:
                # All of them, before any is in the bucket: half a checkpoint is none.
                paths = sorted(path for path in checkpoint.iterdir() if path.is_file())
                files = {path.name: opened.enter_context(path.open("rb")) for path in paths}
                sizes = [os.fstat(file.fileno()).st_size for file in files.values()]
                wanted = held + sum(sizes) + max(largest, *sizes)
                if wanted > room:
                    limit = -(-(wanted + FOR_THE_PROCESS) // MB)
                    _leave_out(checkpoint, f"it does not fit into the memory; set HUGINN_AWS_MEMORY={limit}m")
                    continue
                for name, file in files.items():
                    _put(s3, f"{checkpoint.name}/{name}", file)
        except OSError as error:
            _leave_out(checkpoint, f"{error}; nobody in a container is its owner: chmod -R a+rX")
            continue
        held, largest = held + sum(sizes), max(largest, *sizes)
        print(f"s3://{BUCKET}/{checkpoint.name}", flush=True)


def _checkpoints(folder: Path) -> list[Path]:
    try:
        # Not a pattern, which would pass over what cannot be looked into.
        return [path for path in sorted(folder.iterdir()) if path.is_dir() and _may_be_one(path)]
    except OSError as error:
        _leave_out(folder, f"{error}; nobody in a container is its owner: chmod -R a+rX")
        return []


def _may_be_one(path: Path) -> bool:
    try:
        (path / "config.json").stat()
    except FileNotFoundError:
        return False
    except OSError:
        # What is wrong with it is said where it is read.
        return True
    return True


def _leave_out(checkpoint: Path, why: str) -> None:
    print(f"{checkpoint} is not in s3://{BUCKET}: {why}", file=sys.stderr, flush=True)


def _put(s3: "S3Backend", name: str, file: BinaryIO) -> None:
    # Not over HTTP, in whose pieces moto takes a minute for what this does in a second; nor as one value, of which
    # there would be three in memory for a while.
    key = s3.put_object(BUCKET, name, b"")
    shutil.copyfileobj(file, key._value_buffer, MB)
    key.contentsize = key._value_buffer.tell()


if __name__ == "__main__":
    main()
