"""A checkpoint in S3, brought into a folder of this machine.

The weights are read in ranges, several at a time, and hashed as they arrive. Until their SHA-256 is the digest of
config.json no folder of that name is there; a download that was cut off goes on where it was. What is in the folder
already, and is what the bucket has, is not read again.
"""

import errno
import fcntl
import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from functions.llm.checkpoints.checkpoint import CheckpointError, parse_config
from functions.llm.checkpoints.range_download import (
    DownloadStoppedError,
    NoRangesError,
    ObjectChangedError,
    Progress,
    S3Object,
    bytes_on_disk,
    download,
)
from functions.llm.checkpoints.s3_address import S3Address, S3AddressError

WEIGHTS = "model.safetensors"

# What is read whole: a BPE's tokenizer.json has some MB.
MAX_SMALL_FILE_BYTES = 64 << 20

# What the disk keeps for others.
SPARE_BYTES = 16 << 20

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5, 20
MAX_CONNECTIONS = 10

LOCK_TICK_S = 0.1

ABSENT, DENIED = frozenset({"NoSuchKey", "404"}), frozenset({"AccessDenied", "403"})
REFUSED_CREDENTIALS = frozenset(
    {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "TokenRefreshRequired"}
)
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

logger = logging.getLogger(__name__)


def no_progress(_done_bytes: int, _total_bytes: int) -> None:
    """Tell nobody."""


def fetch_checkpoint(url: str, cache: Path, progress: Progress = no_progress) -> Path:
    """Return a folder that `load_checkpoint` reads, with what is at ``url`` now.

    Args:
        url: s3://bucket/prefix, where the bucket has the files of a checkpoint's folder.
        cache: a folder for what was downloaded; made if need be.
        progress: hears how much of the weights is there.

    Raises:
        CheckpointError: it cannot be had; the message says why, and what can be done.
    """
    try:
        address = S3Address.parse(url)
    except S3AddressError as error:
        raise CheckpointError(str(error)) from error
    return RemoteCheckpoint(address, cache, progress=progress).fetch()


def _client() -> Any:
    # Only where a checkpoint is in S3: this takes as long as the rest of a small start.
    import botocore.session
    from botocore.config import Config

    return botocore.session.get_session().create_client(
        "s3",
        config=Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": 3},
            max_pool_connections=MAX_CONNECTIONS,
            # The digest is ours, and of the whole.
            response_checksum_validation="when_required",
        ),
    )


class RemoteCheckpoint:
    """A checkpoint in S3, and its folder here."""

    def __init__(
        self,
        address: S3Address,
        cache: Path,
        *,
        progress: Progress = no_progress,
        client: Callable[[], Any] = _client,
    ) -> None:
        """Nothing is read or made yet; see `fetch_checkpoint` for the arguments."""
        self._address = address
        # Two addresses may end alike; and a model's name is that of its folder.
        which = hashlib.sha256(str(address).encode()).hexdigest()[:12]
        self._home = cache.absolute() / f"{address.bucket}-{which}"
        self._partial = self._home / f".{address.name}.part"
        self._progress = progress
        self._client = client
        self._stopping = threading.Event()
        self._refused: tuple[S3Object, Mapping[str, bytes], str] | None = None

    @property
    def folder(self) -> Path:
        """Where it is once it is there, whole or not at all."""
        return self._home / self._address.name

    def stop(self) -> None:
        """End a `fetch` that is under way and all later ones, by a CheckpointError."""
        self._stopping.set()

    def fetch(self) -> Path:
        """Return `folder`, with what S3 has now; see `fetch_checkpoint`."""
        with self._explained():
            if self._stopping.is_set():
                raise DownloadStoppedError
            s3 = self._client()
            small = self._small_files(s3)
            config = parse_config(small["config.json"], f"{self._address}/config.json")
            with self._alone():
                if self._is_here(small, config["digest"]):
                    # Of what the bucket had for a while, and has no more.
                    shutil.rmtree(self._partial, ignore_errors=True)
                else:
                    self._bring(s3, small, config["digest"])
        return self.folder

    def _small_files(self, s3: Any) -> dict[str, bytes]:
        # config.json last, as it was written: with an older digest the weights that follow are refused, and not mixed.
        files = {name: self._read(s3, name) for name in ("tokenizer.json", "config.json")}
        with suppress(CheckpointError):
            files["card.md"] = self._read(s3, "card.md")
        return files

    def _read(self, s3: Any, file: str) -> bytes:
        with self._asked_for(file):
            answer = s3.get_object(Bucket=self._address.bucket, Key=self._address.key(file))
        if answer["ContentLength"] > MAX_SMALL_FILE_BYTES:
            raise CheckpointError(
                f"{self._address}/{file}: {answer['ContentLength']} bytes, at most {MAX_SMALL_FILE_BYTES} are read"
            )
        content: bytes = answer["Body"].read()
        return content

    def _is_here(self, small: Mapping[str, bytes], digest: str) -> bool:
        """Whether the folder is what S3 has, read to its last byte: nobody else has looked after it."""
        try:
            if any((self.folder / name).read_bytes() != content for name, content in small.items()):
                return False
            with (self.folder / WEIGHTS).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == digest
        except OSError:
            return False

    def _bring(self, s3: Any, small: Mapping[str, bytes], digest: str) -> None:
        """Put the folder there, or leave what was there as it is."""
        partial = self._partial
        for again in (True, False):
            source = self._weights(s3)
            if self._refused is not None and self._refused[:2] == (source, small):
                # A server is asked again and again whether it is ready; the network shall not bring the same again.
                raise CheckpointError(self._refused[2])
            partial.mkdir(exist_ok=True)
            resumed = bytes_on_disk(source, partial / "parts")
            self._refuse_full_disk(source.size_bytes - resumed)
            logger.info("Downloading %s, %.1f MB", self._address, (source.size_bytes - resumed) / 1e6)
            try:
                found = download(
                    s3, source, partial / WEIGHTS, partial / "parts", progress=self._progress, stopping=self._stopping
                )
            except ObjectChangedError as error:
                if again:
                    continue
                raise CheckpointError(
                    f"{self._address}/{WEIGHTS}: it is replaced again and again while it is read; "
                    "start again once its upload is done"
                ) from error
            if found == digest:
                self._publish(partial, small)
                return
            shutil.rmtree(partial)
            # A marked part may be missing if the power failed; what was never cut off has no such excuse.
            if resumed and again:
                continue
            message = (
                f"{self._address}/{WEIGHTS}: SHA-256 is {found}, config.json says {digest}; it was changed or cut "
                "short, and nothing of it is kept: upload the checkpoint again, config.json last"
            )
            self._refused = (source, dict(small), message)
            raise CheckpointError(message)

    def _weights(self, s3: Any) -> S3Object:
        bucket, key = self._address.bucket, self._address.key(WEIGHTS)
        with self._asked_for(WEIGHTS):
            head = s3.head_object(Bucket=bucket, Key=key)
        return S3Object(bucket, key, head["ETag"], head["ContentLength"])

    def _refuse_full_disk(self, missing_bytes: int) -> None:
        free = shutil.disk_usage(self._home).free
        if missing_bytes + SPARE_BYTES > free:
            raise CheckpointError(
                f"{self._home}: {self._address} needs {missing_bytes / 1e6:.0f} MB more, "
                f"{free / 1e6:.0f} MB are free; {_MORE_ROOM}"
            )

    def _publish(self, partial: Path, small: Mapping[str, bytes]) -> None:
        """Make ``partial`` the folder, in one step; what is open of the one before stays readable."""
        (partial / "parts").unlink()
        for name, content in small.items():
            (partial / name).write_bytes(content)
        for file in partial.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())
        # Between the two steps there is no folder, which is refused, but never a folder of old and new files.
        before = self._home / f".{self._address.name}.before"
        shutil.rmtree(before, ignore_errors=True)
        if self.folder.exists():
            self.folder.rename(before)
        partial.rename(self.folder)
        shutil.rmtree(before, ignore_errors=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one process at a time look after the folder; the others then find it there."""
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The folder itself is what is locked: a file for it would stay behind.
        home = os.open(self._home, os.O_RDONLY)
        try:
            while not _locked(home):
                if self._stopping.wait(LOCK_TICK_S):
                    raise DownloadStoppedError
            yield
        finally:
            os.close(home)

    @contextmanager
    def _asked_for(self, file: str) -> Iterator[None]:
        """Make S3's refusals into CheckpointErrors about ``file``."""
        from botocore.exceptions import ClientError

        try:
            yield
        except ClientError as error:
            raise CheckpointError(self._refusal(error.response["Error"], file)) from error

    def _refusal(self, error: Mapping[str, str], file: str) -> str:
        code, where = error.get("Code", ""), f"{self._address}/{file}"
        if code == "NoSuchBucket":
            return f"{self._address}: there is no bucket {self._address.bucket}; those that are: aws s3 ls"
        if code in ABSENT:
            return f"{where}: no such object; what there is: aws s3 ls {self._address}/"
        if code in DENIED:
            return (
                f"{where}: access denied; it is not there, or these credentials lack s3:GetObject on "
                f"arn:aws:s3:::{self._address.bucket}/{self._address.prefix}/*"
            )
        if code in REFUSED_CREDENTIALS:
            return (
                f"{where}: S3 refuses the credentials ({code}); renew them, "
                "aws sts get-caller-identity says whose they are"
            )
        return f"{where}: S3 answers {code}: {error.get('Message', '')}; start again, what has arrived is kept"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Make whatever else can go wrong into CheckpointErrors."""
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            CredentialRetrievalError,
            NoCredentialsError,
            PartialCredentialsError,
            ProfileNotFound,
        )

        try:
            yield
        except DownloadStoppedError as error:
            raise CheckpointError(f"{self._address}: its download was stopped; what has arrived is kept") from error
        except NoRangesError as error:
            raise CheckpointError(
                f"{self._address}/{WEIGHTS}: {error}; a server that cannot answer range requests is no S3"
            ) from error
        except ClientError as error:
            raise CheckpointError(self._refusal(error.response["Error"], WEIGHTS)) from error
        except (NoCredentialsError, PartialCredentialsError, ProfileNotFound, CredentialRetrievalError) as error:
            raise CheckpointError(
                f"{self._address}: there are no AWS credentials to read it with ({error}); set AWS_PROFILE, "
                "or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from error
        except BotoCoreError as error:
            raise CheckpointError(
                f"{self._address}: S3 cannot be read ({error}); look at the network and AWS_ENDPOINT_URL, and start "
                "again: what has arrived is kept"
            ) from error
        except OSError as error:
            raise CheckpointError(self._local_failure(error)) from error

    def _local_failure(self, error: OSError) -> str:
        where, what = error.filename or self._home, error.strerror or error
        remedy = _MORE_ROOM if error.errno in DISK_FULL else "set CKPT_CACHE to a folder that can be written"
        return f"{where}: {what}, which {self._address} needs; {remedy}"


_MORE_ROOM = "make room there or set CKPT_CACHE to a folder with more; what has arrived is kept"


def _locked(folder: int) -> bool:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
