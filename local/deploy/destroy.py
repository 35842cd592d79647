"""`huginn destroy`: a stage's stack and what it holds, after a question."""

import argparse
import json
import sys
from typing import Any

from local.console import Console
from local.deploy import artefacts, image, stack
from local.deploy.account import Account, find_account, in_words
from local.deploy.buckets import empty_bucket, find_buckets
from local.deploy.command import add_account_options, progress_of, refuse_bad_stage, stack_name
from local.errors import CommandError

EXAMPLES = """\
examples:
  huginn destroy --stage staging
  huginn destroy --stage staging --empty-buckets --yes

A bucket that holds something is never emptied unless --empty-buckets says so. What the stages share, the bucket of
artefacts and the repository of images, stays; its name is told at the end.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = "Delete a stage's stack from AWS, after asking."
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_account_options(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--empty-buckets", action="store_true", help="delete the checkpoints in the stack's bucket too")


def run(args: argparse.Namespace) -> int:
    """Delete the stack; 0 if it is gone."""
    refuse_bad_stage(args.stage)
    account = find_account(args.region, args.profile, args.endpoint_url)

    from botocore.exceptions import BotoCoreError, ClientError

    console = Console()
    try:
        return destroy(args, account, console)
    except (BotoCoreError, ClientError) as error:
        raise in_words(error) from error
    finally:
        console.progress("")


def destroy(args: argparse.Namespace, account: Account, console: Console) -> int:
    """Show, ask and delete.

    Raises:
        CommandError: there is no such stack, a bucket holds something, the answer was another, or AWS refuses.
    """
    name = stack_name(args.stage)
    cfn = account.client("cloudformation")
    present = stack.find_stack(cfn, name)
    if present is not None and present.is_busy:
        present = stack.wait_until_idle(cfn, present, console.progress)
        console.progress("")
    if present is None:
        raise CommandError(
            f"there is no stack {name} in {account.region}, account {account.id}",
            "name another stage or region: huginn destroy --stage S --region R",
            3,
        )
    types = _resource_types(cfn, present)
    buckets = find_buckets(account, cfn, present)
    shown = [
        f"stack {name} in {account.region}, account {account.id}: {len(types)} resources",
        *(f"  {each}" for each in sorted(set(types))),
        *map(str, buckets),
    ]
    print("\n".join(shown), file=sys.stderr if args.json else sys.stdout)
    full = [bucket for bucket in buckets if bucket.objects and not bucket.stays]
    if full and not args.empty_buckets:
        raise CommandError(
            f"{full[0]}; it is not deleted with something in it",
            f"save what you need (aws s3 sync s3://{full[0].name} FOLDER), then: "
            f"huginn destroy --stage {args.stage} --empty-buckets",
            1,
        )
    if not args.yes:
        _ask(args.stage)
    if args.empty_buckets:
        for bucket in buckets:
            console.progress(f"huginn: emptying {bucket.name}")
            empty_bucket(account.client("s3"), bucket.name)
    stack.delete(cfn, present, progress_of(console, len(types)))
    kept = [bucket for bucket in buckets if bucket.stays]
    if args.empty_buckets:
        for bucket in kept:
            account.client("s3").delete_bucket(Bucket=bucket.name)
        kept = []
    console.progress("")
    _tell(args, account, name, [bucket.name for bucket in kept])
    return 0


def _ask(stage: str) -> None:
    if not sys.stdin.isatty():
        raise CommandError("nobody is there to be asked", "say that it is meant: --yes", 2)
    sys.stderr.write(f"this cannot be undone; type the stage's name ({stage}) to delete it: ")
    sys.stderr.flush()
    if sys.stdin.readline().strip() != stage:
        raise CommandError("that was another name", "nothing was deleted", 1)


def _resource_types(cfn: Any, present: stack.Stack) -> list[str]:
    return [
        each["ResourceType"]
        for page in cfn.get_paginator("list_stack_resources").paginate(StackName=present.id)
        for each in page["StackResourceSummaries"]
    ]


def _tell(args: argparse.Namespace, account: Account, name: str, kept: list[str]) -> None:
    shared = [artefacts.bucket_name(account), image.REPOSITORY]
    if args.json:
        print(json.dumps({"deleted": name, "kept_buckets": kept, "shared": shared}))
        return
    print(f"{name} is deleted")
    for bucket in kept:
        print(f"kept: the bucket {bucket}, as its template says")
    print(f"kept, for other stages: the bucket {shared[0]} and the ECR repository {shared[1]}, where they exist")
