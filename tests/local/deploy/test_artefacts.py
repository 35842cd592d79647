"""The bucket of artefacts: ours or nobody's, and nothing is sent twice."""

import pytest
from botocore.exceptions import ClientError

from local.deploy.account import Account
from local.deploy.artefacts import content_key, ensure_bucket, upload
from local.errors import CommandError


class S3:
    """Notes what it is asked, and refuses to look at a bucket or an object with an error code."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.asked: list[tuple[str, dict]] = []

    def __getattr__(self, name: str):
        def ask(**arguments):
            self.asked.append((name, arguments))
            if name.startswith("head_"):
                raise ClientError({"Error": {"Code": self.code}}, name)

        return ask


class Session:
    """Has one client."""

    def __init__(self, s3: S3) -> None:
        self.s3 = s3

    def client(self, service: str, endpoint_url: str | None) -> S3:
        return self.s3


@pytest.mark.parametrize(("region", "place"), [("us-east-1", {}), ("eu-west-1", {"LocationConstraint": "eu-west-1"})])
def test_a_bucket_is_made_private(region, place):
    """In the stack's region, which S3 wants to hear of everywhere but in its first."""
    s3 = S3("404")
    name = ensure_bucket(Account("1" * 12, region, Session(s3)))
    assert name == f"huginn-artefacts-{'1' * 12}-{region}"
    asked = dict(s3.asked)
    assert asked["create_bucket"].get("CreateBucketConfiguration", {}) == place
    assert all(asked["put_public_access_block"]["PublicAccessBlockConfiguration"].values())


def test_a_bucket_of_somebody_else_is_not_used():
    """Its name can be guessed, and whoever has it would be given our code, and give CloudFormation theirs."""
    s3 = S3("403")
    with pytest.raises(CommandError, match="cannot be used"):
        ensure_bucket(Account("1" * 12, "eu-west-1", Session(s3)))
    assert s3.asked == [
        ("head_bucket", {"Bucket": f"huginn-artefacts-{'1' * 12}-eu-west-1", "ExpectedBucketOwner": "1" * 12})
    ]


def test_uploads_name_the_owner():
    """A bucket that changed hands is not written to."""
    s3 = S3("404")
    upload(Account("1" * 12, "eu-west-1", Session(s3)), "bucket", "key", b"content", lambda _: None)
    assert [arguments["ExpectedBucketOwner"] for _, arguments in s3.asked] == ["1" * 12, "1" * 12]


def test_a_key_is_its_content():
    """The same bytes have the same name, others another."""
    assert content_key("a", b"1", "zip") == content_key("a", b"1", "zip") != content_key("a", b"2", "zip")
