"""The AWS account that the credentials at hand belong to."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from local.errors import CommandError

NO_CREDENTIALS = (
    "deploying needs AWS credentials, and there are none;",
    "run `aws configure`, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
)


@dataclass(frozen=True)
class Account:
    """Whose stack it will be, and where."""

    id: str
    region: str
    session: Any
    endpoint_url: str | None = None

    def client(self, service: str) -> Any:
        """Give boto3's client of a service."""
        return self.session.client(service, endpoint_url=self.endpoint_url)


def find_account(
    region: str | None, profile: str | None, endpoint_url: str | None, environ: Mapping[str, str] = os.environ
) -> Account:
    """Give the account of the credentials at hand.

    Raises:
        CommandError: there are no credentials, no region or none of that name, or AWS refuses them.
    """
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError, ProfileNotFound
    except ModuleNotFoundError as error:
        raise CommandError(
            f"deploying needs {error.name}, which is not installed", "install what the project pins: make setup", 2
        ) from error

    try:
        # AWS_REGION is what Lambda and the newer tools set; boto3 itself knows only the other.
        session = boto3.Session(profile_name=profile, region_name=region or environ.get("AWS_REGION"))
    except ProfileNotFound as error:
        raise CommandError(str(error), "name another with --profile, or make it: aws configure sso", 2) from error
    if session.get_credentials() is None:
        raise CommandError(*NO_CREDENTIALS, exit_code=2)
    if session.region_name is None:
        raise CommandError("no AWS region is chosen", "name one: --region eu-central-1, or AWS_REGION", 2)
    _refuse_unknown_region(session)
    account = Account("", session.region_name, session, endpoint_url)
    try:
        identity = account.client("sts").get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        raise in_words(error) from error
    return Account(identity["Account"], session.region_name, session, endpoint_url)


def in_words(error: Exception) -> CommandError:
    """Give what AWS, or the way to it, has refused as a sentence with the next step."""
    from botocore.exceptions import ClientError, NoCredentialsError, PartialCredentialsError, TokenRetrievalError

    if isinstance(error, NoCredentialsError):
        return CommandError(*NO_CREDENTIALS, exit_code=2)
    if isinstance(error, PartialCredentialsError | TokenRetrievalError):
        return CommandError(str(error), "complete them, or sign in again: aws sso login", 2)
    if not isinstance(error, ClientError):
        return CommandError(f"AWS does not answer: {error}", "look at the network, the region and the endpoint", 4)
    code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
    what = f"AWS refuses {error.operation_name}: {code}: {message}"
    if code in {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}:
        return CommandError(what, "the credentials are too old: sign in again, aws sso login", 2)
    if code in {"InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch", "AuthFailure"}:
        return CommandError(what, "the credentials are wrong, or the region is not enabled for the account", 2)
    if code in {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"}:
        return CommandError(what, "use credentials that may do this, or have the permission added", 2)
    return CommandError(what, "nothing more is done; when the reason is gone, run the command again", 1)


def _refuse_unknown_region(session: Any) -> None:
    known = [
        name
        for partition in session.get_available_partitions()
        for name in session.get_available_regions("lambda", partition_name=partition)
    ]
    if session.region_name not in known:
        raise CommandError(
            f"{session.region_name!r} is no AWS region that has Lambda",
            "name one of: " + ", ".join(sorted(known)),
            2,
        )
