"""`huginn deploy` and `huginn destroy`, from the command line to the stack, against moto's server."""

import argparse
import io
import json
import sys
import zipfile
from collections.abc import Iterator

import pytest

from local.cli import main
from local.deploy import command, parts
from local.deploy.account import find_account
from local.deploy.artefacts import bucket_name
from local.deploy.probe import probe_stream
from local.emulator import Emulator
from tests.local.deploy.conftest import ACCOUNT, REGION
from tests.local.deploy.small_template import small_template

STACK = "huginn-prod"
COMMAND = [sys.executable, "-m", "functions.runtime", "tests.local.deploy.streaming_app.app"]


@pytest.fixture(scope="module")
def streaming() -> Iterator[str]:
    """The address of something that streams."""
    with Emulator(COMMAND) as emulator:
        yield emulator.url


@pytest.fixture(scope="module")
def buffered() -> Iterator[str]:
    """The address of something that holds its answers back."""
    with Emulator(COMMAND, mode="buffered") as emulator:
        yield emulator.url


@pytest.fixture
def build(monkeypatch, tmp_path):
    """Says what is packaged from now on: the code of the backend, and a template."""

    def use(code: str = "1", template=None) -> None:
        def zipped(name: str, text: str):
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w") as file:
                file.writestr(zipfile.ZipInfo("app.py"), text)
            path = tmp_path / f"{name}.zip"
            path.write_bytes(packed.getvalue())
            return path

        zips = {"FrontendKey": "frontend", "BackendKey": "backend", "OperationsKey": "deployment"}
        paths = {key: zipped(name, code if name == "backend" else "0") for key, name in zips.items()}
        monkeypatch.setattr(parts, "build_parts", lambda _: parts.gather(template or small_template(), paths))

    use()
    return use


@pytest.fixture
def huginn(image, build, capsys):
    """Runs `huginn deploy` with the image, and gives its exit code and what it said."""

    def run(*arguments: str, command: str = "deploy") -> tuple[int, str, str]:
        code = main([command, *arguments, *(["--image", image] if command == "deploy" else [])])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def stack_of(aws) -> dict | None:
    """The stack as CloudFormation tells of it."""
    stacks = [each for each in aws("cloudformation").describe_stacks()["Stacks"] if each["StackName"] == STACK]
    return stacks[0] if stacks else None


def parameters_of(aws) -> dict[str, str]:
    """The stack's parameters."""
    return {each["ParameterKey"]: each["ParameterValue"] for each in stack_of(aws)["Parameters"]}


def test_the_first_deployment(huginn, aws, streaming):
    """Costs, then changes, then the stack is there, made of what was uploaded, and the stream was tried."""
    code, out, err = huginn("--probe-url", streaming)
    assert (code, err) == (0, "")
    order = ["stack huginn-prod in", "a month without a caller", "what changes:", "deployed in", "the stream is one"]
    assert [out.index(words) for words in order] == sorted(out.index(words) for words in order)
    assert stack_of(aws)["StackStatus"] == "CREATE_COMPLETE"
    parameters = parameters_of(aws)
    assert parameters["LlmImageUri"].startswith(f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/huginn-llm@sha256:")
    assert parameters["LlmMemoryMb"] == "3008"
    objects = [each["Key"] for each in aws("s3").list_objects_v2(Bucket=parameters["ArtefactBucket"])["Contents"]]
    assert {parameters[name] for name in ("FrontendKey", "BackendKey", "OperationsKey")} < set(objects)


def test_the_bucket_of_artefacts_is_private(huginn, aws, streaming):
    """Code is nobody else's business."""
    huginn("--probe-url", streaming)
    name = bucket_name(find_account(None, None, None))
    blocked = aws("s3").get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"]
    assert all(blocked.values())
    assert len(blocked) == 4


def test_a_dry_run_changes_nothing(huginn, build, aws, streaming):
    """Neither before the first deployment, where nothing is made, nor later, where the changes are worked out."""
    code, out, _ = huginn("--dry-run")
    assert code == 0
    assert "+ AWS::S3::Bucket" in out
    assert "a million tokens" in out
    assert stack_of(aws) is None
    assert aws("s3").list_buckets()["Buckets"] == []

    huginn("--probe-url", streaming)
    before = stack_of(aws)
    build("2")
    code, out, _ = huginn("--dry-run")
    assert code == 0
    assert [line.split() for line in out.splitlines() if line.startswith("  ~")] == [
        ["~", "AWS::Lambda::Function", "Backend"]
    ]
    assert stack_of(aws) == before
    assert aws("cloudformation").list_change_sets(StackName=STACK)["Summaries"][1:] == []


def test_nothing_to_do(huginn, aws, streaming):
    """The second time nothing changes, and the stream is tried all the same."""
    huginn("--probe-url", streaming)
    code, out, _ = huginn("--probe-url", streaming)
    assert code == 0
    assert "nothing changes" in out
    assert "the stream is one" in out
    assert stack_of(aws)["StackStatus"] == "CREATE_COMPLETE"


def test_what_is_not_said_again_stays(huginn, build, aws, streaming):
    """An option of the last deployment is that of the next."""
    huginn("--probe-url", streaming, "--memory-mb", "2048")
    build("2")
    huginn("--probe-url", streaming)
    assert parameters_of(aws)["LlmMemoryMb"] == "2048"
    assert stack_of(aws)["StackStatus"] == "UPDATE_COMPLETE"


def test_a_stream_in_one_piece_is_rolled_back(huginn, build, aws, streaming, buffered):
    """The stack is again what it was: template, parameters, code."""
    huginn("--probe-url", streaming)
    before, template = parameters_of(aws), aws("cloudformation").get_template(StackName=STACK)["TemplateBody"]
    build("2", small_template(More={"Type": "AWS::SQS::Queue", "Properties": {}}))
    code, out, err = huginn("--probe-url", buffered)
    assert code == 1
    assert "+ AWS::SQS::Queue" in out
    assert "does not stream" in err
    assert "the stack was rolled back" in err
    assert parameters_of(aws) == before
    assert aws("cloudformation").get_template(StackName=STACK)["TemplateBody"] == template
    assert aws("sqs").list_queues().get("QueueUrls", []) == []


def test_a_stack_that_cannot_be_judged_stays(huginn, aws):
    """It answers; that it refuses just this request is no reason to take it away from everybody."""
    with Emulator(COMMAND, {"STATUS": "422"}) as refusing, pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "probe_stream", lambda url: probe_stream(url, patience_s=0))
        code, _, err = huginn("--probe-url", refusing.url)
    assert code == 1
    assert "cannot be judged" in err
    assert stack_of(aws)["StackStatus"] == "CREATE_COMPLETE"


@pytest.mark.parametrize(("given", "passed"), [("0", "0"), ("20", "20"), ("12.5", "12.5"), ("1234567", "1234567")])
def test_a_budget_of_nothing_is_none(given, passed):
    """The template asks whether it is "0"."""
    parser = argparse.ArgumentParser()
    command.configure(parser)
    assert command.chosen(parser.parse_args(["--budget-usd", given])) == {"MonthlyBudgetUsd": passed}


def test_a_first_stack_whose_stream_is_none_is_deleted(huginn, aws, buffered):
    """There is nothing to go back to; who wants to look at it says so."""
    code, _, err = huginn("--probe-url", buffered)
    assert code == 1
    assert "which was new, was deleted again; to look at it: --no-rollback" in err
    assert stack_of(aws) is None
    code, _, err = huginn("--probe-url", buffered, "--no-rollback")
    assert code == 1
    assert "left as it is" in err
    assert stack_of(aws) is not None


def test_a_resource_that_cannot_be_made(huginn, build, aws, streaming):
    """CloudFormation's reason is shown; what it leaves behind is out of the way of the next deployment."""
    properties = {"FunctionName": "nobody", "EventSourceArn": "arn:aws:sqs:eu-central-1:123456789012:none"}
    build(template=small_template(Broken={"Type": "AWS::Lambda::EventSourceMapping", "Properties": properties}))
    code, _, err = huginn("--probe-url", streaming)
    assert code == 1
    assert "the stack could not be changed (ROLLBACK_COMPLETE)" in err
    assert "CREATE_FAILED" in err
    build()
    code, _, err = huginn("--probe-url", streaming)
    assert (code, err) == (0, "")
    assert stack_of(aws)["StackStatus"] == "CREATE_COMPLETE"


def test_data_is_not_lost_by_an_update(huginn, build, aws, streaming):
    """A bucket that a template has no longer is named, and nothing is done, until it is said that it may go."""
    huginn("--probe-url", streaming)
    build(template=small_template(Checkpoints=None))
    code, _, err = huginn("--probe-url", streaming)
    assert code == 1
    assert "- AWS::S3::Bucket" in err
    assert "--allow-data-loss" in err
    assert stack_of(aws)["StackStatus"] == "CREATE_COMPLETE"
    assert huginn("--probe-url", streaming, "--allow-data-loss")[0] == 0


def test_json_for_programs(huginn, streaming):
    """One object, and nothing beside it."""
    code, out, err = huginn("--probe-url", streaming, "--json")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert report["stack"] == STACK
    assert report["outputs"]["PageUrl"]
    assert {each["type"] for each in report["changes"]} >= {"AWS::Lambda::Function", "AWS::S3::Bucket"}
    assert report["probe"]["spread_s"] > 0
    assert sum(report["usd_per_million_tokens"].values()) > 0
    # What was measured, not what was assumed before.
    assert report["tokens_per_s"] == pytest.approx(1024 / report["probe"]["spread_s"])


def test_costs_need_no_account(build, capsys):
    """Who has none yet wants to know most."""
    assert main(["deploy", "--costs"]) == 0
    assert "a month without a caller" in capsys.readouterr().out


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def deployed(huginn, aws, streaming) -> str:
    """A stack; gives the name of its bucket."""
    huginn("--probe-url", streaming)
    listed = aws("cloudformation").list_stack_resources(StackName=STACK)["StackResourceSummaries"]
    return next(each["PhysicalResourceId"] for each in listed if each["ResourceType"] == "AWS::S3::Bucket")


@pytest.mark.parametrize(("typed", "is_gone"), [("prod\n", True), ("yes\n", False), ("", False)])
def test_destroy_asks_for_the_name(huginn, aws, deployed, monkeypatch, typed, is_gone):
    """Only the stage's name is a yes."""
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    code, out, err = huginn(command="destroy")
    assert code == (0 if is_gone else 1)
    assert f"bucket {deployed}: empty" in out
    assert "type the stage's name (prod)" in err
    assert (stack_of(aws) is None) == is_gone


def test_destroy_without_anybody_to_ask(huginn, aws, deployed, monkeypatch):
    """A script must say that it means it."""
    monkeypatch.setattr("sys.stdin", io.StringIO("prod\n"))
    code, _, err = huginn(command="destroy")
    assert (code, "--yes" in err) == (2, True)
    assert stack_of(aws) is not None


def test_destroy_empties_nothing_silently(huginn, aws, deployed):
    """A bucket with something in it stops it; all versions go when that is said, and then the bucket."""
    s3 = aws("s3")
    s3.put_bucket_versioning(Bucket=deployed, VersioningConfiguration={"Status": "Enabled"})
    for body in (b"first", b"second"):
        s3.put_object(Bucket=deployed, Key="mine/model.safetensors", Body=body)
    s3.delete_object(Bucket=deployed, Key="mine/model.safetensors")
    code, _, err = huginn("--yes", command="destroy")
    assert code == 1
    assert f"bucket {deployed}: 3 objects and versions" in err
    assert f"aws s3 sync s3://{deployed}" in err
    assert stack_of(aws) is not None

    code, out, _ = huginn("--yes", "--empty-buckets", command="destroy")
    assert code == 0
    assert "huginn-prod is deleted" in out
    assert stack_of(aws) is None
    assert deployed not in [each["Name"] for each in s3.list_buckets()["Buckets"]]


def test_destroy_keeps_what_the_template_keeps(huginn, build, aws, streaming):
    """A bucket that outlives its stack is named with what is in it, and left alone."""
    build(
        template=small_template(Checkpoints={"Type": "AWS::S3::Bucket", "DeletionPolicy": "Retain", "Properties": {}})
    )
    huginn("--probe-url", streaming)
    listed = aws("cloudformation").list_stack_resources(StackName=STACK)["StackResourceSummaries"]
    kept = next(each["PhysicalResourceId"] for each in listed if each["ResourceType"] == "AWS::S3::Bucket")
    aws("s3").put_object(Bucket=kept, Key="config.json", Body=b"{}")
    code, out, _ = huginn("--yes", "--json", command="destroy")
    assert code == 0
    assert json.loads(out)["kept_buckets"] == [kept]
    assert aws("s3").list_objects_v2(Bucket=kept)["KeyCount"] == 1
