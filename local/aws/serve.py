"""A local AWS in one process: moto, with the checkpoints of a folder in a bucket before the first request is heard."""

import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moto.s3.models import S3Backend

# That of everybody at moto.
ACCOUNT = "123456789012"
BUCKET = "huginn-ckpts"
REGION = "eu-west-1"
CKPTS = Path("/ckpts")
HOST, PORT = "0.0.0.0", 5000  # noqa: S104 - the other containers ask


def main() -> None:
    """Serve until a signal says otherwise."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # A line for every health check would hide all others.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from moto.s3.models import s3_backends
    from werkzeug.serving import run_simple

    fill(s3_backends[ACCOUNT]["aws"], CKPTS)
    run_simple(HOST, PORT, DomainDispatcherApplication(create_backend_app), threaded=True)


def fill(s3: "S3Backend", folder: Path) -> None:
    """Make the bucket, and put every checkpoint of a folder into it under the checkpoint's name.

    One that cannot be read, or that is too large for /tmp, is left out and named on stderr.
    """
    s3.create_bucket(BUCKET, REGION)
    for config in sorted(folder.glob("*/config.json")):
        checkpoint = config.parent
        try:
            for path in sorted(file for file in checkpoint.iterdir() if file.is_file()):
                # Not over HTTP, in whose pieces moto takes a minute for what this does in a second.
                s3.put_object(BUCKET, f"{checkpoint.name}/{path.name}", path.read_bytes())
        except OSError as error:
            print(f"{checkpoint} is not in s3://{BUCKET}: {error}", file=sys.stderr, flush=True)
            continue
        print(f"s3://{BUCKET}/{checkpoint.name}", flush=True)


if __name__ == "__main__":
    main()
