"""Where a checkpoint is in S3, as CKPT_PATH says it."""

import re
from dataclasses import dataclass
from typing import Self

SCHEME = "s3://"

# The names that S3 gives to general purpose buckets.
BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class S3AddressError(ValueError):
    """An address names no checkpoint in S3; the message names it, and what was expected."""


@dataclass(frozen=True)
class S3Address:
    """A bucket, and the prefix that a checkpoint's files have in it.

    Args:
        bucket: its name.
        prefix: without a slash at its beginning or end; its last part is the model's name in the API.
    """

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the address that ``text`` is; S3AddressError says why it is none."""
        bucket, _, prefix = text.removeprefix(SCHEME).partition("/")
        address = cls(bucket, prefix.strip("/"))
        if not is_s3_address(text) or not BUCKET_NAME.fullmatch(bucket):
            raise S3AddressError(f"{text!r} is no address in S3; expected s3://bucket/prefix")
        # The name becomes that of a folder, and the first letter of a hidden folder says that it is unfinished.
        if address.name in {"", ".", ".."} or address.name.startswith(".") or "\0" in text:
            raise S3AddressError(
                f"{text!r} names no checkpoint in the bucket; expected s3://bucket/prefix, where config.json is"
            )
        return address

    @property
    def name(self) -> str:
        """The model's name in the API."""
        return self.prefix.rpartition("/")[2]

    def key(self, file: str) -> str:
        """Return the key of one of the checkpoint's files."""
        return f"{self.prefix}/{file}"

    def __str__(self) -> str:
        """The address as it is written."""
        return f"{SCHEME}{self.bucket}/{self.prefix}"


def is_s3_address(text: str) -> bool:
    """Return whether ``text`` means S3, rightly written or not, and not a folder."""
    return text.startswith(SCHEME)
