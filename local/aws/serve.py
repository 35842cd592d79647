"""A local AWS in one process: moto, with the checkpoints of a folder in a bucket before the first request is heard."""

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

BUCKET = "huginn-ckpts"
REGION = "eu-west-1"
CKPTS = Path("/ckpts")
HOST, PORT = "0.0.0.0", 5000  # noqa: S104 - the other containers ask


def main() -> None:
    """Serve until a signal says otherwise."""
    # Nobody's credentials; moto takes any, and boto3 asks the network for some where there are none.
    os.environ |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": REGION}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # A line for every health check would hide all others.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    import boto3
    from moto import mock_aws
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    with mock_aws():
        fill(boto3.client("s3"), CKPTS)
        run_simple(HOST, PORT, DomainDispatcherApplication(create_backend_app), threaded=True)


def fill(s3: Any, folder: Path) -> None:
    """Make the bucket, and put every checkpoint of a folder into it under the checkpoint's name.

    One that cannot be read, or that is too large for /tmp, is left out and named on stderr.
    """
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    for config in sorted(folder.glob("*/config.json")):
        checkpoint = config.parent
        try:
            for path in sorted(file for file in checkpoint.iterdir() if file.is_file()):
                with path.open("rb") as content:
                    s3.put_object(Bucket=BUCKET, Key=f"{checkpoint.name}/{path.name}", Body=content)
        except OSError as error:
            print(f"{checkpoint} is not in s3://{BUCKET}: {error}", file=sys.stderr, flush=True)
            continue
        print(f"s3://{BUCKET}/{checkpoint.name}", flush=True)


if __name__ == "__main__":
    main()
