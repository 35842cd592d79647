"""The model function's published versions: which one is served, and which ones nobody needs any more."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

# The alias that all requests reach; its name is infra/tiers.yaml's.
ALIAS = "live"


@dataclass(frozen=True)
class Served:
    """The version that the alias points to, and its checkpoint's address; empty is the image's own checkpoint."""

    version: str
    checkpoint: str


def find_served(lambda_client: Any, function: str) -> Served | None:
    """Give what the alias serves now, whoever has moved it there; None if there is no such alias."""
    from botocore.exceptions import ClientError

    from infra.new_checkpoint import CKPT_PATH

    try:
        version: str = lambda_client.get_alias(FunctionName=function, Name=ALIAS)["FunctionVersion"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        return None
    found = lambda_client.get_function_configuration(FunctionName=function, Qualifier=version)
    return Served(version, found.get("Environment", {}).get("Variables", {}).get(CKPT_PATH, ""))


def serve_again(lambda_client: Any, function: str, served: Served) -> None:
    """Have the alias point to a version that it pointed to before."""
    if lambda_client.get_alias(FunctionName=function, Name=ALIAS)["FunctionVersion"] != served.version:
        lambda_client.update_alias(FunctionName=function, Name=ALIAS, FunctionVersion=served.version)


def count_versions(lambda_client: Any, function: str) -> int:
    """Give how many published versions there are: each one's snapshot is paid for as long as it is there."""
    return sum(each["Version"] != "$LATEST" for each in _versions(lambda_client, function))


def remove_old_versions(lambda_client: Any, function: str, kept: Collection[str]) -> list[str]:
    """Give the versions that were removed: on_checkpoint's that are older than the served one, but for the newest.

    That one is what is gone back to. What CloudFormation has published is CloudFormation's: an update that fails needs
    it. What is newer than the served one, on_checkpoint may be at work on.

    Args:
        lambda_client: boto3's.
        function: its name.
        kept: the ARNs of versions that stay in any case: the stack's own.
    """
    from infra.new_checkpoint import DESCRIPTION

    served = find_served(lambda_client, function)
    if served is None or not served.version.isdecimal():
        return []
    former = sorted(
        int(each["Version"])
        for each in _versions(lambda_client, function)
        if each["Version"].isdecimal()
        and int(each["Version"]) < int(served.version)
        and each.get("Description", "").startswith(DESCRIPTION)
        and each["FunctionArn"] not in kept
    )
    removed = list(map(str, former[:-1]))
    for version in removed:
        lambda_client.delete_function(FunctionName=function, Qualifier=version)
    return removed


def _versions(lambda_client: Any, function: str) -> list[dict[str, Any]]:
    pages = lambda_client.get_paginator("list_versions_by_function").paginate(FunctionName=function)
    return [each for page in pages for each in page["Versions"]]
