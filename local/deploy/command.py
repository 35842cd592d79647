"""`huginn deploy`: all tiers to AWS, in one stack, and a look whether it streams."""

import argparse
import json
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.console import Console
from local.deploy import artefacts, costs, image, parts, prices, stack
from local.deploy.account import Account, find_account, in_words
from local.deploy.buckets import find_buckets
from local.deploy.probe import TIMED_TOKENS, Answer, ProbeError, UnjudgedError, probe_stream
from local.deploy.shape import read_deployment
from local.deploy.versions import Served, count_versions, find_served, remove_old_versions, serve_again
from local.errors import CommandError

REPOSITORY = Path(__file__).parents[2]

STAGE = re.compile(r"[a-z][a-z0-9-]{0,19}")
# A change set may be given its template in the request up to this size.
MAX_TEMPLATE_BODY_BYTES = 51_200
# What the image is taken for in the costs before it was built.
USUAL_IMAGE_BYTES = 250_000_000
# Half of what muninn-char wrote through HTTP on two cores (README, Measured); the probe says what it is there.
USUAL_TOKENS_PER_S = 2_000.0
# Those that the llm function writes, besides those that an alarm is about.
USUAL_METRICS = 6

# The template's parameters that have an option of their own.
OPTIONS = {
    "LlmMemoryMb": "memory_mb",
    "LlmReservedConcurrency": "reserved_concurrency",
    "MonthlyBudgetUsd": "budget_usd",
    "AlarmEmail": "alarm_email",
    "KeepWarm": "keep_warm",
    "Checkpoint": "checkpoint",
    "LogRetentionDays": "log_retention_days",
    "OtlpEndpoint": "otlp_endpoint",
    "PagePasswordSecret": "page_password_secret",
    "AllSessionsTokensPerDay": "all_sessions_tokens_per_day",
}

EXAMPLES = """\
examples:
  huginn deploy --costs
  huginn deploy --dry-run
  huginn deploy --stage staging --region eu-central-1 --alarm-email me@example.org
  huginn deploy --image 123456789012.dkr.ecr.eu-central-1.amazonaws.com/huginn-llm:mine --json

Chunks that arrive together, or no stream at all, put the stack back to what it was; a first one is deleted again.
An option that is not given stays what it was.
"""


@dataclass
class Report:
    """What is told at the end."""

    name: str
    region: str = ""
    account: str = ""
    image: str | None = None
    idle: costs.Costs = field(default_factory=dict)
    per_million_tokens: costs.Costs = field(default_factory=dict)
    tokens_per_s: float = USUAL_TOKENS_PER_S
    changes: list[stack.Change] = field(default_factory=list)
    outputs: Mapping[str, str] = field(default_factory=dict)
    probe: Answer | None = None
    model_versions: int = 1
    removed_versions: list[str] = field(default_factory=list)

    def as_json(self) -> str:
        """Give it for a program."""
        probe = self.probe and {
            "first_s": self.probe.first_s,
            "spread_s": self.probe.spread_s,
            "arrivals": len(self.probe.arrivals),
        }
        return json.dumps(
            {
                "stack": self.name,
                "region": self.region,
                "account": self.account,
                "image": self.image,
                "idle_usd_per_month": dict(self.idle),
                "usd_per_million_tokens": dict(self.per_million_tokens),
                "tokens_per_s": self.tokens_per_s,
                "changes": [
                    {"action": each.action, "id": each.logical_id, "type": each.resource_type} for each in self.changes
                ],
                "outputs": dict(self.outputs),
                "probe": probe,
                "model_versions": self.model_versions,
                "removed_versions": self.removed_versions,
            }
        )


def add_account_options(parser: argparse.ArgumentParser) -> None:
    """Add what says whose stack it is, and which."""
    parser.add_argument("--stage", default="prod", metavar="S", help="the stack is huginn-S (default: %(default)s)")
    parser.add_argument("--region", help="where (default: AWS_REGION, or the profile's)")
    parser.add_argument("--profile", help="of the AWS configuration (default: AWS_PROFILE)")
    parser.add_argument(
        "--endpoint-url", metavar="URL", help="another AWS, such as a moto server (default: AWS_ENDPOINT_URL)"
    )
    parser.add_argument("--json", action="store_true", help="report as JSON")


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = (
        "Package and deploy page, API and model to AWS, as one CloudFormation stack. Says what will change and what it "
        "costs before, and tries the deployed stream after."
    )
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_account_options(parser)
    parser.add_argument("--dry-run", action="store_true", help="show what would change and cost, and change nothing")
    parser.add_argument("--costs", action="store_true", help="show what it costs, without an account")
    parser.add_argument("--image", metavar="URI", help="the model's image in ECR (default: built here, with Docker)")
    parser.add_argument("--memory-mb", type=int, metavar="MB", help="of the model's function; processors come with it")
    parser.add_argument("--reserved-concurrency", type=int, metavar="N", help="texts written at a time, at most")
    parser.add_argument("--budget-usd", type=float, metavar="USD", help="a month's bill that is told of")
    parser.add_argument("--alarm-email", metavar="ADDRESS", help="who is told")
    parser.add_argument("--keep-warm", choices=("true", "false"), help="call the model often enough that it stays")
    parser.add_argument("--checkpoint", metavar="PLACE", help="s3://bucket/prefix, or a folder in the image")
    parser.add_argument("--log-retention-days", type=int, metavar="DAYS", help="how long logs are kept")
    parser.add_argument("--otlp-endpoint", metavar="URL", help="where the model's metrics are sent by OTLP, too")
    parser.add_argument(
        "--page-password-secret", metavar="NAME", help="the password that the page asks for, in Secrets Manager"
    )
    parser.add_argument(
        "--all-sessions-tokens-per-day",
        type=int,
        metavar="N",
        help="what the page's visitors may use together in a day; 0 is no limit",
    )
    parser.add_argument(
        "--allow-data-loss", action="store_true", help="go on if a bucket or another keeper of data would be replaced"
    )
    parser.add_argument("--no-rollback", action="store_true", help="leave a stack whose stream is none as it is")
    parser.add_argument("--probe-url", metavar="URL", help="where the page is, if it has a name of its own")


def run(args: argparse.Namespace) -> int:
    """Deploy; 0 if the stack is there and streams."""
    refuse_bad_stage(args.stage)
    console = Console()
    if args.costs:
        return show_costs(args, console)
    account = find_account(args.region, args.profile, args.endpoint_url)

    from botocore.exceptions import BotoCoreError, ClientError

    try:
        report = deploy(args, account, console)
    except (BotoCoreError, ClientError) as error:
        raise in_words(error) from error
    finally:
        console.progress("")
    if args.json:
        print(report.as_json())
    return 0


def refuse_bad_stage(stage: str) -> None:
    """Raise CommandError for a name that AWS' own names cannot be made with."""
    if not STAGE.fullmatch(stage):
        raise CommandError(f"--stage {stage!r} is no name for a stage", "expected: up to 20 of a-z, 0-9 and -", 2)


def show_costs(args: argparse.Namespace, console: Console) -> int:
    """Print what a deployment of this checkout would cost."""
    with tempfile.TemporaryDirectory(prefix="huginn-deploy-") as folder:
        built = parts.build_parts(Path(folder))
    report = Report(stack_name(args.stage))
    estimate(report, args, built, {}, USUAL_IMAGE_BYTES, USUAL_TOKENS_PER_S)
    print(report.as_json() if args.json else "\n".join(cost_lines(report)))
    console.progress("")
    return 0


def stack_name(stage: str) -> str:
    """Give the stack's name."""
    return f"huginn-{stage}"


def deploy(args: argparse.Namespace, account: Account, console: Console) -> Report:
    """Do it, or with ``--dry-run`` only what changes nothing, and say on the way what matters.

    Raises:
        CommandError: something stands in the way, or the deployed stream is none.
    """
    say = (lambda _: None) if args.json else print
    report = Report(stack_name(args.stage), account.region, account.id)
    cfn = account.client("cloudformation")
    say(f"stack {report.name} in {account.region}, account {account.id}")
    present = settled(cfn, stack.find_stack(cfn, report.name), args, console)
    served = served_by(account, present)
    report.model_versions = versions_of(account, present)
    deployed = parameters_of(present, served)
    if served is not None and present is not None and deployed != present.parameters and args.checkpoint is None:
        say(f"the model goes on with {served.checkpoint or 'the checkpoint of its image'}, which it serves by now")

    found = image.find_image(account, args.image) if args.image else None
    if found is None:
        image.refuse_missing_docker(deployed.get("LlmImageUri"))
    console.progress("huginn: packaging")
    with tempfile.TemporaryDirectory(prefix="huginn-deploy-") as folder:
        built = parts.build_parts(Path(folder))
    image_bytes = found.size_bytes if found else USUAL_IMAGE_BYTES
    estimate(report, args, built, deployed, image_bytes, USUAL_TOKENS_PER_S)
    console.progress("")
    say("\n".join(cost_lines(report)))

    if found is None and not args.dry_run:
        also = "telemetry" if {**deployed, **chosen(args)}.get("OtlpEndpoint") else ""
        found = image.build_image(account, REPOSITORY, console.progress, also)
    report.image = found.uri if found else None
    if report.image is None:
        say("LlmFunction: a new image would be built")
    if args.dry_run and present is None:
        # Working out the change set of a new stack would make an empty one: all of the template is new anyway.
        report.changes = [
            stack.Change("Add", name, each["Type"]) for name, each in sorted(built.template["Resources"].items())
        ]
        say(
            "\n".join(
                ["everything is new; with these, the roles and permissions that SAM adds:"]
                + [str(each) for each in report.changes]
            )
        )
        return report

    template, passed = put_up(args, account, built, report, deployed, console)
    changes = stack.make_change_set(
        cfn, report.name, template, passed, is_new=present is None, tags={"project": "huginn", "stage": args.stage}
    )
    report.changes = list(changes.changes) if changes else []
    say("\n".join(["what changes:"] + [str(each) for each in report.changes]) if changes else "nothing changes")
    if changes is not None and args.dry_run:
        stack.drop_change_set(cfn, changes)
    if args.dry_run:
        return report

    former = stack.former_of(cfn, present, deployed) if present else None
    after = present
    if changes is not None:
        refuse_data_loss(cfn, changes, args)
        began = time.monotonic()
        after = execute(account, changes, served, present, console)
        say(f"deployed in {time.monotonic() - began:.0f} s")
    report.outputs = dict(after.outputs) if after else {}
    report.probe = try_stream(args, account, report, former, console, is_changed=changes is not None)
    finish(report, args, account, built, deployed, image_bytes)
    say("\n".join(ending(report)))
    return report


def try_stream(
    args: argparse.Namespace,
    account: Account,
    report: Report,
    former: stack.Former | None,
    console: Console,
    *,
    is_changed: bool,
) -> Answer:
    """Give what the deployed stack answers.

    Raises:
        CommandError: it is no stream, and what was changed was put back; or it cannot be judged, and stays.
    """
    console.progress("huginn: trying the stream")
    try:
        return probe_stream(args.probe_url or report.outputs["PageUrl"])
    except UnjudgedError as error:
        raise CommandError(str(error), "the stack was left as it is now; try it on its page", 1) from error
    except ProbeError as error:
        undone = roll_back(args, account, report, former, console) if is_changed else "nothing was changed"
        raise CommandError(str(error), undone, 1) from error
    finally:
        console.progress("")


def served_by(account: Account, present: stack.Stack | None) -> Served | None:
    """Give what a stack's model serves, None if there is none yet."""
    function = present.outputs.get("LlmFunctionName") if present else None
    return find_served(account.client("lambda"), function) if function else None


def versions_of(account: Account, present: stack.Stack | None) -> int:
    """Give how many versions of a stack's model are published; of one that is to be made it will be one."""
    function = present.outputs.get("LlmFunctionName") if present else None
    return max(1, count_versions(account.client("lambda"), function)) if function else 1


def parameters_of(present: stack.Stack | None, served: Served | None) -> dict[str, str]:
    """Give a stack's parameters, and as the checkpoint the one that is served, whoever has seen to that.

    on_checkpoint moves the alias past CloudFormation, whose own parameter would bring the old weights back.
    """
    known = dict(present.parameters) if present else {}
    return known if served is None else {**known, "Checkpoint": served.checkpoint}


def execute(
    account: Account, changes: stack.ChangeSet, served: Served | None, present: stack.Stack | None, console: Console
) -> stack.Stack:
    """Make the changes, and give the stack after them.

    Raises:
        CommandError: they could not be made; the model serves what it served before.
    """
    cfn = account.client("cloudformation")
    try:
        return stack.execute(cfn, changes, progress_of(console, len(changes.changes)))
    except CommandError:
        left = stack.find_stack(cfn, changes.stack_id)
        if served and present and left and not left.is_busy:
            # CloudFormation goes back to the version that it has published itself, not to on_checkpoint's.
            serve_again(account.client("lambda"), present.outputs["LlmFunctionName"], served)
        raise
    finally:
        console.progress("")


def settled(cfn: Any, present: stack.Stack | None, args: argparse.Namespace, console: Console) -> stack.Stack | None:
    """Give the stack once it can be updated, None if it is to be made."""
    if present is not None and present.is_busy:
        if args.dry_run:
            raise CommandError(f"{present.name} is being changed ({present.status})", "try again when that is over", 4)
        present = stack.wait_until_idle(cfn, present, console.progress)
        console.progress("")
    if present is None or present.status == "REVIEW_IN_PROGRESS":
        return None
    if present.status in stack.UNDELETABLE:
        remedy = (
            f"aws cloudformation continue-update-rollback --stack-name {present.name}"
            if present.status == "UPDATE_ROLLBACK_FAILED"
            else f"remove what is left of it: huginn destroy --stage {args.stage}"
        )
        raise CommandError(f"{present.name} is stuck: {present.status} {present.reason}".rstrip(), remedy, 1)
    if present.status in {"ROLLBACK_COMPLETE", "CREATE_FAILED"}:
        # What is left of a creation that failed: it can be deleted and nothing else.
        if not args.dry_run:
            stack.delete(cfn, present, progress_of(console, 0))
        return None
    return present


def estimate(
    report: Report,
    args: argparse.Namespace,
    built: parts.Parts,
    deployed: Mapping[str, str],
    image_bytes: int,
    tokens_per_s: float,
) -> None:
    """Write the costs into the report."""
    shape = read_deployment(
        built.template,
        {**deployed, **chosen(args)},
        image_bytes=image_bytes,
        stored_bytes=sum(map(len, built.files.values())),
        metrics=USUAL_METRICS,
        versions=report.model_versions,
    )
    report.tokens_per_s = tokens_per_s
    report.idle = costs.idle_costs(shape)
    report.per_million_tokens = costs.costs_per_million_tokens(shape, costs.Traffic(tokens_per_s))


def cost_lines(report: Report) -> list[str]:
    """Give the costs for a person."""
    return [
        *costs.table("a month without a caller", report.idle),
        f"  (a snapshot for each version of the model: {report.model_versions} here, up to 3 with on_checkpoint)",
        *costs.table(f"a million tokens, at {report.tokens_per_s:,.0f} a second", report.per_million_tokens),
        f"prices of {prices.AS_OF} for {prices.REGION}, without the free tier",
    ]


def chosen(args: argparse.Namespace) -> dict[str, str]:
    """Give the template's parameters that have been given as options."""
    values = {name: getattr(args, option) for name, option in OPTIONS.items()}
    # The template compares as text: 0.0 would be a budget, and 0 is none.
    return {
        name: f"{value:.12g}" if isinstance(value, float) else str(value)
        for name, value in values.items()
        if value is not None
    }


def put_up(
    args: argparse.Namespace,
    account: Account,
    built: parts.Parts,
    report: Report,
    deployed: Mapping[str, str],
    console: Console,
) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Have what is deployed where CloudFormation finds it; give the template's place and its parameters."""
    bucket = artefacts.bucket_name(account)
    template = {"TemplateBody": built.template_body}
    # A dry run leaves nothing behind; only a template too large for the request has to lie somewhere.
    if not args.dry_run or len(built.template_body) > MAX_TEMPLATE_BODY_BYTES:
        artefacts.ensure_bucket(account)
        template = put_up_template(account, args.stage, built.template_body, console)
    if not args.dry_run:
        for key, content in built.files.items():
            artefacts.upload(account, bucket, key, content, console.progress)
    # Not "as CloudFormation knows it": what is served is what goes on being served.
    served = {name: deployed[name] for name in ("Checkpoint",) if name in deployed}
    given = {"Stage": args.stage, "ArtefactBucket": bucket, **built.keys, **served, **chosen(args)}
    # In a dry run it may be one that is to be built: another one than is deployed, for all that CloudFormation knows.
    given["LlmImageUri"] = report.image or image.to_be_built(account)
    return template, passed_parameters(built.template, given, deployed)


def put_up_template(account: Account, stage: str, body: str, console: Console) -> dict[str, str]:
    """Give where CloudFormation reads a template, which is there then."""
    bucket = artefacts.bucket_name(account)
    key = artefacts.content_key(f"templates/{stage}", body.encode(), "json")
    artefacts.upload(account, bucket, key, body.encode(), console.progress)
    return {"TemplateURL": artefacts.template_url(account, bucket, key)}


def passed_parameters(
    template: Mapping[str, Any], given: Mapping[str, str], deployed: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Give the parameters that the template has: as given, else as they were, else by the template's default."""
    passed: list[dict[str, Any]] = []
    for name, declared in template.get("Parameters", {}).items():
        if name in given:
            passed.append({"ParameterKey": name, "ParameterValue": given[name]})
        elif name in deployed:
            passed.append({"ParameterKey": name, "UsePreviousValue": True})
        elif "Default" not in declared:
            raise CommandError(f"the template needs a value for {name}", "give it, or a default in infra/tiers.yaml", 1)
    return passed


def refuse_data_loss(cfn: Any, changes: stack.ChangeSet, args: argparse.Namespace) -> None:
    """Raise CommandError, with nothing changed, if what is not in the template would go."""
    lost = [str(each).strip() for each in changes.changes if each.loses_data]
    if lost and not args.allow_data_loss:
        stack.drop_change_set(cfn, changes)
        raise CommandError(
            "what they hold would be lost: " + "; ".join(lost),
            "save it, then go on with --allow-data-loss; nothing was changed",
            1,
        )


def progress_of(console: Console, expected: int) -> stack.Watcher:
    """Give what shows a stack's events on one line, and its failures above it."""
    began, done = time.monotonic(), set()

    def watch(event: stack.Event) -> None:
        if event.status.endswith("_COMPLETE"):
            done.add(event.logical_id)
        if event.status.endswith("_FAILED"):
            console.log(f"huginn: {event.logical_id}: {event.status} {event.reason}")
        count = f"{min(len(done), expected)} of {expected}, " if expected else ""
        console.progress(f"huginn: {count}{time.monotonic() - began:.0f} s: {event.logical_id} {event.status}")

    return watch


def roll_back(
    args: argparse.Namespace, account: Account, report: Report, former: stack.Former | None, console: Console
) -> str:
    """Put the stack back to what it was before, or delete one that was not there, and give what was done in words."""
    if args.no_rollback:
        return "the stack was left as it is (--no-rollback)"
    cfn = account.client("cloudformation")
    present = stack.find_stack(cfn, report.name)
    if former is None:
        if present is not None:
            buckets = find_buckets(account, cfn, present)
            stack.delete(cfn, present, progress_of(console, 0))
            # What outlives a stack for the sake of what is in it, and nothing is.
            for bucket in buckets:
                if bucket.stays and not bucket.objects:
                    account.client("s3").delete_bucket(Bucket=bucket.name)
        console.progress("")
        return "the stack, which was new, was deleted again; to look at it: --no-rollback"
    back = stack.make_change_set(
        cfn,
        report.name,
        put_up_template(account, args.stage, former.template, console),
        [{"ParameterKey": name, "ParameterValue": value} for name, value in former.parameters.items()],
        is_new=False,
        tags={"project": "huginn", "stage": args.stage},
    )
    if back is not None:
        stack.execute(cfn, back, progress_of(console, len(back.changes)))
    console.progress("")
    return "the stack was rolled back to the template and the parameters that it had before"


def finish(
    report: Report,
    args: argparse.Namespace,
    account: Account,
    built: parts.Parts,
    deployed: Mapping[str, str],
    image_bytes: int,
) -> None:
    """Remove what nobody calls any more, and count anew with what was measured."""
    if function := report.outputs.get("LlmFunctionName"):
        own = stack.physical_ids(account.client("cloudformation"), report.name, "AWS::Lambda::Version")
        report.removed_versions = remove_old_versions(account.client("lambda"), function, own)
        report.model_versions = max(1, count_versions(account.client("lambda"), function))
    if report.probe is not None and report.probe.spread_s > 0:
        rate = TIMED_TOKENS / report.probe.spread_s
        estimate(report, args, built, deployed, image_bytes, rate)


def ending(report: Report) -> list[str]:
    """Give the last lines: what was measured, and where everything is."""
    lines = []
    if report.probe is not None:
        lines.append(
            f"the stream is one: {len(report.probe.arrivals)} chunks, the first after {report.probe.first_s:.2f} s, "
            f"the others over {report.probe.spread_s:.2f} s"
        )
        lines += costs.table(
            f"a million tokens, at the {report.tokens_per_s:,.0f} a second of now", report.per_million_tokens
        )[:1]
        lines += costs.table(f"a month, with {report.model_versions} snapshots kept", report.idle)[:1]
    if report.removed_versions:
        lines.append(f"removed old versions, whose snapshots were paid for: {', '.join(report.removed_versions)}")
    return lines + [f"{name:<18} {value}" for name, value in sorted(report.outputs.items())]
