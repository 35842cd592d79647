"""The bucket of what is deployed from: zips and templates, under names made of their contents."""

import hashlib
from collections.abc import Callable

from local.deploy.account import Account
from local.errors import CommandError


def bucket_name(account: Account) -> str:
    """Give the bucket's name: one for all stages of an account in a region."""
    return f"huginn-artefacts-{account.id}-{account.region}"


def content_key(stem: str, content: bytes, ending: str) -> str:
    """Give the name under which a content is kept: the same one means that nothing has changed."""
    return f"{stem}/{hashlib.sha256(content).hexdigest()[:32]}.{ending}"


def ensure_bucket(account: Account) -> str:
    """Give the bucket's name, made if it was not there: private and encrypted.

    Raises:
        CommandError: a bucket of this name belongs to somebody else.
    """
    from botocore.exceptions import ClientError

    s3, name = account.client("s3"), bucket_name(account)
    try:
        # Whoever guesses the name may have taken it first, to be given our code: ours, or nobody's.
        s3.head_bucket(Bucket=name, ExpectedBucketOwner=account.id)
    except ClientError as error:
        if error.response["Error"]["Code"] not in {"404", "NoSuchBucket", "NotFound"}:
            raise CommandError(
                f"the bucket {name} cannot be used ({error.response['Error']['Code']})",
                "use credentials that may read and write it; if it is another account's, deploy to another region",
                2,
            ) from error
    else:
        return name
    place = {} if account.region == "us-east-1" else {"LocationConstraint": account.region}
    s3.create_bucket(Bucket=name, **({"CreateBucketConfiguration": place} if place else {}))
    s3.put_public_access_block(
        Bucket=name,
        PublicAccessBlockConfiguration=dict.fromkeys(
            ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
        ),
    )
    s3.put_bucket_encryption(
        Bucket=name,
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
        },
    )
    return name


def upload(account: Account, bucket: str, key: str, content: bytes, say: Callable[[str], None]) -> None:
    """Have the content under its key; what is there already is not sent again."""
    from botocore.exceptions import ClientError

    s3 = account.client("s3")
    try:
        s3.head_object(Bucket=bucket, Key=key, ExpectedBucketOwner=account.id)
    except ClientError as error:
        if error.response["Error"]["Code"] not in {"404", "NoSuchKey", "NotFound"}:
            raise
    else:
        return
    say(f"huginn: uploading {key} ({len(content) / 1e6:.1f} MB)")
    s3.put_object(Bucket=bucket, Key=key, Body=content, ExpectedBucketOwner=account.id)


def template_url(account: Account, bucket: str, key: str) -> str:
    """Give the address under which CloudFormation reads a template from the bucket."""
    return f"{account.client('s3').meta.endpoint_url}/{bucket}/{key}"
