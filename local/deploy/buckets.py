"""The buckets of a stack, and what they hold: more than a template can make again."""

import json
from dataclasses import dataclass
from typing import Any

from local.deploy import stack
from local.deploy.account import Account
from local.errors import CommandError


@dataclass(frozen=True)
class Bucket:
    """A bucket of the stack, and what it holds, all versions of it."""

    name: str
    objects: int
    size_bytes: int
    stays: bool

    def __str__(self) -> str:
        """Give a line for a person."""
        holds = f"{self.objects} objects and versions, {self.size_bytes / 1e6:.1f} MB" if self.objects else "empty"
        return f"bucket {self.name}: {holds}" + (", stays when the stack is deleted" if self.stays else "")


def find_buckets(account: Account, cfn: Any, present: stack.Stack) -> list[Bucket]:
    """Give the buckets of a stack that are there."""
    from botocore.exceptions import ClientError

    declared = json.loads(stack.template_of(cfn, present)).get("Resources", {}) if present.holds_resources else {}
    s3 = account.client("s3")
    buckets = []
    for page in cfn.get_paginator("list_stack_resources").paginate(StackName=present.id):
        for each in page["StackResourceSummaries"]:
            if each["ResourceType"] != "AWS::S3::Bucket" or not each.get("PhysicalResourceId"):
                continue
            name, objects, size_bytes = each["PhysicalResourceId"], 0, 0
            try:
                for listed in s3.get_paginator("list_object_versions").paginate(Bucket=name):
                    objects += len(listed.get("Versions", [])) + len(listed.get("DeleteMarkers", []))
                    size_bytes += sum(version["Size"] for version in listed.get("Versions", []))
            except ClientError as error:
                if error.response["Error"]["Code"] != "NoSuchBucket":
                    raise
                continue
            policy = declared.get(each["LogicalResourceId"], {}).get("DeletionPolicy")
            buckets.append(Bucket(name, objects, size_bytes, stays=policy in {"Retain", "RetainExceptOnCreate"}))
    return buckets


def empty_bucket(s3: Any, name: str) -> None:
    """Delete all that a bucket holds, former versions included.

    Raises:
        CommandError: something may not be deleted.
    """
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=name):
        found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        if not found:
            continue
        # A page holds at most as many as one request may delete: a thousand.
        gone = s3.delete_objects(
            Bucket=name,
            Delete={"Objects": [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in found], "Quiet": True},
        )
        if errors := gone.get("Errors"):
            raise CommandError(
                f"{name}: {errors[0]['Key']} cannot be deleted: {errors[0].get('Message', errors[0]['Code'])}",
                "delete it yourself, and run `huginn destroy` again",
                1,
            )
