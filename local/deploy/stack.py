"""The CloudFormation stack of a stage: what would change, changing it, and what became of it."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from local.errors import CommandError

# Roles have names that CloudFormation gives, or ours; the SAM transform is a macro.
CAPABILITIES = ("CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND")

# CloudFormation's words for "there is nothing to do", the only way in which it says so.
NOTHING_TO_DO = ("didn't contain changes", "No updates are to be performed")

# What is lost with them is not in the template.
KEEPERS_OF_DATA = ("AWS::S3::Bucket", "AWS::DynamoDB::Table", "AWS::DynamoDB::GlobalTable", "AWS::KMS::Key")

UNDELETABLE = ("DELETE_FAILED", "ROLLBACK_FAILED", "UPDATE_ROLLBACK_FAILED")


@dataclass(frozen=True)
class Stack:
    """A stack as it is."""

    name: str
    id: str
    status: str
    reason: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_busy(self) -> bool:
        """Whether CloudFormation is at work on it."""
        return self.status.endswith("_IN_PROGRESS") and self.status != "REVIEW_IN_PROGRESS"

    @property
    def holds_resources(self) -> bool:
        """Whether it was ever made: a change set alone makes a stack of a kind, too, and so does a creation undone."""
        return self.status not in {"REVIEW_IN_PROGRESS", "ROLLBACK_COMPLETE", "DELETE_COMPLETE"}


@dataclass(frozen=True)
class Former:
    """What a stack was made of before, to go back to."""

    template: str
    parameters: Mapping[str, str]


@dataclass(frozen=True)
class Change:
    """What happens to one resource."""

    action: str
    logical_id: str
    resource_type: str
    is_replaced: bool = False

    @property
    def loses_data(self) -> bool:
        """Whether something that is not in the template goes with it."""
        return self.resource_type in KEEPERS_OF_DATA and (self.action == "Remove" or self.is_replaced)

    def __str__(self) -> str:
        """Give a line for a person."""
        sign = {"Add": "+", "Remove": "-", "Modify": "~", "Import": "+"}.get(self.action, "?")
        return f"  {sign} {self.resource_type:<40} {self.logical_id}" + (" (replaced)" if self.is_replaced else "")


@dataclass(frozen=True)
class ChangeSet:
    """Changes that CloudFormation has worked out and not made."""

    id: str
    stack_id: str
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Event:
    """What happened to a resource of a stack."""

    id: str
    logical_id: str
    physical_id: str
    resource_type: str
    status: str
    reason: str


Watcher = Callable[[Event], None]


def find_stack(cfn: Any, name: str) -> Stack | None:
    """Give a stack by its name or id, None if there is none (or no more)."""
    from botocore.exceptions import ClientError

    try:
        found = cfn.describe_stacks(StackName=name)["Stacks"]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise
    if not found or found[0]["StackStatus"] == "DELETE_COMPLETE":
        return None
    stack = found[0]
    return Stack(
        name=stack["StackName"],
        id=stack["StackId"],
        status=stack["StackStatus"],
        reason=stack.get("StackStatusReason", ""),
        parameters={each["ParameterKey"]: each["ParameterValue"] for each in stack.get("Parameters", [])},
        outputs={each["OutputKey"]: each["OutputValue"] for each in stack.get("Outputs", [])},
    )


def template_of(cfn: Any, stack: Stack) -> str:
    """Give the template that the stack was made of last."""
    body = cfn.get_template(StackName=stack.id, TemplateStage="Original")["TemplateBody"]
    # boto3 has parsed it where it was JSON.
    return body if isinstance(body, str) else json.dumps(body, indent=1)


def former_of(cfn: Any, stack: Stack, parameters: Mapping[str, str]) -> Former:
    """Give what the stack is made of now: of ``parameters``, those that it has."""
    return Former(template_of(cfn, stack), {name: parameters[name] for name in stack.parameters})


def physical_ids(cfn: Any, name: str, resource_type: str) -> list[str]:
    """Give what AWS calls the resources of a type that a stack has."""
    return [
        each["PhysicalResourceId"]
        for page in cfn.get_paginator("list_stack_resources").paginate(StackName=name)
        for each in page["StackResourceSummaries"]
        if each["ResourceType"] == resource_type and each.get("PhysicalResourceId")
    ]


def make_change_set(
    cfn: Any,
    name: str,
    template: Mapping[str, str],
    parameters: Sequence[Mapping[str, Any]],
    *,
    is_new: bool,
    tags: Mapping[str, str],
    sleep: Callable[[float], None] = time.sleep,
) -> ChangeSet | None:
    """Give what would change, None if nothing would.

    ``template`` is ``TemplateURL`` or ``TemplateBody``; it and the parameters are as boto3 takes them.
    """
    from botocore.exceptions import ClientError

    try:
        made = cfn.create_change_set(
            StackName=name,
            ChangeSetName=f"huginn-{uuid4().hex}",
            ChangeSetType="CREATE" if is_new else "UPDATE",
            Capabilities=list(CAPABILITIES),
            Parameters=list(parameters),
            Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
            **template,
        )
    except ClientError as error:
        if any(words in str(error) for words in NOTHING_TO_DO):
            return None
        raise
    seen = cfn.describe_change_set(ChangeSetName=made["Id"], StackName=name)
    while seen["Status"] in {"CREATE_PENDING", "CREATE_IN_PROGRESS"}:
        sleep(1)
        seen = cfn.describe_change_set(ChangeSetName=made["Id"], StackName=name)
    if seen["Status"] == "FAILED":
        drop_change_set(cfn, ChangeSet(made["Id"], made["StackId"], ()))
        reason = seen.get("StatusReason", "no reason given")
        if any(words in reason for words in NOTHING_TO_DO):
            return None
        raise CommandError(f"CloudFormation refuses the template: {reason}", "nothing was changed", 1)
    changes = _read_changes(seen)
    while token := seen.get("NextToken"):
        seen = cfn.describe_change_set(ChangeSetName=made["Id"], StackName=name, NextToken=token)
        changes += _read_changes(seen)
    return ChangeSet(made["Id"], made["StackId"], tuple(changes))


def drop_change_set(cfn: Any, change_set: ChangeSet) -> None:
    """Forget a change set, and the stack that was made for it alone."""
    cfn.delete_change_set(ChangeSetName=change_set.id, StackName=change_set.stack_id)
    stack = find_stack(cfn, change_set.stack_id)
    if stack is not None and stack.status == "REVIEW_IN_PROGRESS":
        cfn.delete_stack(StackName=stack.id)


def execute(cfn: Any, change_set: ChangeSet, watch: Watcher, *, poll_s: float = 2.0) -> Stack:
    """Make the changes, and give the stack after them.

    Raises:
        CommandError: they could not be made; CloudFormation has put back what was before.
    """
    last = _last_event_id(cfn, change_set.stack_id)
    cfn.execute_change_set(ChangeSetName=change_set.id, StackName=change_set.stack_id)
    status, failures = _follow(cfn, change_set.stack_id, last, watch, poll_s)
    stack = find_stack(cfn, change_set.stack_id)
    if stack is None or status not in {"CREATE_COMPLETE", "UPDATE_COMPLETE"}:
        raise CommandError(f"the stack could not be changed ({status}):{_lines(failures)}", _remedy(status), 1)
    return stack


def delete(cfn: Any, stack: Stack, watch: Watcher, *, poll_s: float = 2.0) -> None:
    """Delete the stack.

    Raises:
        CommandError: something in it could not be deleted.
    """
    last = _last_event_id(cfn, stack.id)
    cfn.delete_stack(StackName=stack.id)
    status, failures = _follow(cfn, stack.id, last, watch, poll_s)
    if status != "DELETE_COMPLETE":
        raise CommandError(
            f"the stack {stack.name} could not be deleted ({status}):{_lines(failures)}",
            "remove what stands in the way, and run `huginn destroy` again",
            1,
        )


def wait_until_idle(
    cfn: Any, stack: Stack, say: Callable[[str], None], sleep: Callable[[float], None] = time.sleep
) -> Stack | None:
    """Give the stack once nothing is at work on it, None if it is gone then."""
    found: Stack | None = stack
    while found is not None and found.is_busy:
        say(f"huginn: waiting for what is at work on {stack.name} ({found.status})")
        sleep(2)
        found = find_stack(cfn, stack.id)
    return found


def _read_changes(described: Mapping[str, Any]) -> list[Change]:
    changes = [change["ResourceChange"] for change in described.get("Changes", []) if "ResourceChange" in change]
    return [
        Change(
            action=change["Action"],
            logical_id=change["LogicalResourceId"],
            resource_type=change["ResourceType"],
            # "Conditional" depends on values known only when it is done: it may be.
            is_replaced=change.get("Replacement") in {"True", "Conditional"},
        )
        for change in changes
    ]


def _new_events(cfn: Any, stack_id: str, last: str) -> list[Event]:
    """What happened after the event ``last``, oldest first."""
    found: list[Event] = []
    # The newest come first, and of a stack with a long life there are many pages.
    for page in cfn.get_paginator("describe_stack_events").paginate(StackName=stack_id):
        for each in page["StackEvents"]:
            if each["EventId"] == last:
                return found[::-1]
            found.append(
                Event(
                    id=each["EventId"],
                    logical_id=each["LogicalResourceId"],
                    physical_id=each.get("PhysicalResourceId", ""),
                    resource_type=each["ResourceType"],
                    status=each["ResourceStatus"],
                    reason=each.get("ResourceStatusReason", ""),
                )
            )
    return found[::-1]


def _last_event_id(cfn: Any, stack_id: str) -> str:
    events = cfn.describe_stack_events(StackName=stack_id)["StackEvents"]
    return str(events[0]["EventId"]) if events else ""


def _follow(cfn: Any, stack_id: str, last: str, watch: Watcher, poll_s: float) -> tuple[str, list[Event]]:
    """Watch until the stack itself has come to an end: its last status, and what failed on the way.

    The status of the stack alone would not do: for a moment after a change has begun it is still the former one.
    """
    failures: list[Event] = []
    try:
        while True:
            for event in _new_events(cfn, stack_id, last):
                last = event.id
                watch(event)
                if event.status.endswith("_FAILED") and "cancelled" not in event.reason.lower():
                    failures.append(event)
                if event.physical_id == stack_id and not event.status.endswith("_IN_PROGRESS"):
                    return event.status, failures
            time.sleep(poll_s)
    except KeyboardInterrupt:
        raise CommandError(
            "stopped watching; CloudFormation goes on with what was begun",
            "the next `huginn deploy` or `huginn destroy` waits for it",
            130,
        ) from None


def _lines(failures: Sequence[Event]) -> str:
    shown = [f"\n    {event.logical_id} ({event.resource_type}): {event.reason}" for event in failures]
    return "".join(shown) or " no reason was given"


def _remedy(status: str) -> str:
    if status == "UPDATE_ROLLBACK_FAILED":
        return "not even what was before could be put back: aws cloudformation continue-update-rollback"
    return "CloudFormation has put back what was before; put the reason right and deploy again"
