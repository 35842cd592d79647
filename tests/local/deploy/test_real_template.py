"""The stack that is really deployed: Chalice's template with the tiers, transformed by SAM, in moto."""

import io
import json
import sys
import zipfile
from collections.abc import Iterator

import pytest

from infra.new_checkpoint import CKPT_PATH, DESCRIPTION
from local.cli import main
from local.deploy import command, parts, stack
from local.emulator import Emulator
from local.errors import CommandError
from local.template import build_template
from tests.infra import moto_shim
from tests.local.deploy import change_sets
from tests.local.deploy.conftest import push

COMMAND = [sys.executable, "-m", "functions.runtime", "tests.local.deploy.streaming_app.app"]


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> parts.Parts:
    """What `huginn deploy` is given, with zips of the web tiers that are nearly empty."""
    folder = build_template(tmp_path_factory.mktemp("template"))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr(zipfile.ZipInfo("app.py"), "")
    for tier in ("frontend", "backend"):
        (folder / f"{tier}.zip").write_bytes(packed.getvalue())
    zips = {"FrontendKey": "frontend", "BackendKey": "backend", "OperationsKey": "deployment"}
    paths = {key: folder / f"{name}.zip" for key, name in zips.items()}
    return parts.gather(json.loads((folder / "sam.json").read_text("utf-8")), paths)


@pytest.fixture
def real(template, moto_url, monkeypatch) -> None:
    """What is packaged is the real template, which moto has learnt to make a stack of."""
    moto_shim.install()
    change_sets.install()
    monkeypatch.setattr(parts, "build_parts", lambda _: template)


def test_every_parameter_can_be_given(template):
    """By an option, or the command knows it: none stays at its default for ever."""
    known = {"Stage", "ArtefactBucket", "LlmImageUri", *template.keys}
    assert set(template.template["Parameters"]) <= known | set(command.OPTIONS)


def test_deploy_and_destroy(real, aws, image, capsys):
    """Everything that the template says is created, the stream is tried, and all but the data is deleted again."""
    with Emulator(COMMAND) as emulator:
        assert main(["deploy", "--stage", "staging", "--image", image, "--probe-url", emulator.url, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    outputs = {"PageUrl", "BackendUrl", "LlmUrl", "CheckpointBucket", "BatchQueueUrl", "LlmFunctionName"}
    assert outputs <= set(report["outputs"])
    (found,) = aws("cloudformation").describe_stacks(StackName="huginn-staging")["Stacks"]
    assert found["StackStatus"] == "CREATE_COMPLETE"
    # A month without a caller is mostly the snapshot of 3008 MB.
    assert report["idle_usd_per_month"]["SnapStart's snapshots"] == pytest.approx(11.61, abs=0.01)
    assert sum(report["idle_usd_per_month"].values()) < 20
    aliases = aws("lambda").list_aliases(FunctionName=report["outputs"]["LlmFunctionName"])["Aliases"]
    assert [alias["Name"] for alias in aliases] == ["live"]
    versions = aws("lambda").list_versions_by_function(FunctionName=report["outputs"]["LlmFunctionName"])["Versions"]
    assert {each["Version"] for each in versions} == {"$LATEST", aliases[0]["FunctionVersion"]}

    assert main(["destroy", "--stage", "staging", "--yes", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert report["outputs"]["CheckpointBucket"] in told["kept_buckets"]
    assert aws("cloudformation").describe_stacks()["Stacks"] == []


def serve(aws, function: str, checkpoint: str) -> str:
    """What on_checkpoint does, and no more: the version that it has published and moved the alias to."""
    client = aws("lambda")
    variables = client.get_function_configuration(FunctionName=function)["Environment"]["Variables"]
    client.update_function_configuration(
        FunctionName=function, Environment={"Variables": {**variables, CKPT_PATH: checkpoint}}
    )
    version = client.publish_version(FunctionName=function, Description=f"{DESCRIPTION}{checkpoint}")["Version"]
    client.update_alias(FunctionName=function, Name="live", FunctionVersion=version)
    return version


def outputs(aws) -> dict[str, str]:
    """The stack's."""
    (found,) = aws("cloudformation").describe_stacks(StackName="huginn-prod")["Stacks"]
    return {each["OutputKey"]: each["OutputValue"] for each in found["Outputs"]}


def live(aws, function: str) -> tuple[str, str | None]:
    """What everybody is served: the version, and its checkpoint."""
    version = aws("lambda").get_alias(FunctionName=function, Name="live")["FunctionVersion"]
    found = aws("lambda").get_function_configuration(FunctionName=function, Qualifier=version)
    return version, found["Environment"]["Variables"].get(CKPT_PATH)


def versions(aws, function: str) -> list[str]:
    """The published ones."""
    found = aws("lambda").list_versions_by_function(FunctionName=function)["Versions"]
    return [each["Version"] for each in found if each["Version"] != "$LATEST"]


@pytest.fixture(scope="module")
def streaming() -> Iterator[str]:
    """The address of something that streams."""
    with Emulator(COMMAND) as emulator:
        yield emulator.url


def deploy(url: str, image: str, *options: str) -> int:
    """The exit code of a deployment whose page is said to be at a URL."""
    return main(["deploy", "--image", image, "--probe-url", url, *options])


def test_a_dry_run_tells_of_the_image(real, aws, image, streaming, monkeypatch, capsys):
    """Without one, it would be built: the model's function and its version change, and nothing is built."""
    assert deploy(streaming, image) == 0
    capsys.readouterr()
    monkeypatch.setattr("local.deploy.image.refuse_missing_docker", lambda _: None)
    assert main(["deploy", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "LlmFunction: a new image would be built" in out
    changes = [line.split() for line in out.split("what changes:\n")[1].splitlines()]
    assert ["~", "AWS::Lambda::Function", "LlmFunction"] in changes
    assert {(sign, kind) for sign, kind, _ in changes} >= {("+", "AWS::Lambda::Version"), ("~", "AWS::Lambda::Alias")}


def test_a_new_checkpoint_outlives_deployment_and_rollback(real, aws, image, streaming, capsys):
    """What on_checkpoint had served, another image serves, too, and so does the way back to the former one."""
    assert deploy(streaming, image) == 0
    function = outputs(aws)["LlmFunctionName"]
    assert live(aws, function)[1] is None

    newer = serve(aws, function, "s3://mine/newer")
    assert deploy(streaming, push(aws, "another")) == 0
    assert "goes on with s3://mine/newer" in capsys.readouterr().out
    second, checkpoint = live(aws, function)
    assert (second != newer, checkpoint) == (True, "s3://mine/newer")

    newest = serve(aws, function, "s3://mine/newest")
    with Emulator(COMMAND, mode="buffered") as buffered:
        assert deploy(buffered.url, push(aws, "worse")) == 1
    assert "was rolled back" in capsys.readouterr().err
    third, checkpoint = live(aws, function)
    assert (third not in {second, newest}, checkpoint) == (True, "s3://mine/newest")

    # Who names another one gets it.
    assert deploy(streaming, image, "--checkpoint", "s3://mine/older") == 0
    assert live(aws, function)[1] == "s3://mine/older"


def test_a_first_stack_that_is_taken_back_leaves_nothing(real, aws, image):
    """Its buckets would outlive it for the sake of what is in them; whatever somebody has put there stays."""
    with Emulator(COMMAND, mode="buffered") as buffered:
        assert deploy(buffered.url, image) == 1
    assert aws("cloudformation").describe_stacks()["Stacks"] == []
    assert [each["Name"][:16] for each in aws("s3").list_buckets()["Buckets"]] == ["huginn-artefacts"]


def test_versions_that_somebody_needs_stay(real, aws, image, streaming, capsys, monkeypatch):
    """CloudFormation's, for an update that fails goes back to it, and the newest former one of on_checkpoint."""
    assert deploy(streaming, image) == 0
    function = outputs(aws)["LlmFunctionName"]
    own, _ = live(aws, function)
    _, former, served = (serve(aws, function, f"s3://mine/{name}") for name in ("oldest", "older", "newer"))
    aws("lambda").update_function_configuration(FunctionName=function, MemorySize=512)
    by_hand = aws("lambda").publish_version(FunctionName=function, Description="mine")["Version"]
    assert deploy(streaming, image) == 0
    assert "whose snapshots were paid for: 2\n" in capsys.readouterr().out
    assert main(["deploy", "--image", image, "--dry-run", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["model_versions"] == 4
    assert report["idle_usd_per_month"]["SnapStart's snapshots"] == pytest.approx(4 * 11.61, abs=0.04)
    assert {own, former, served, by_hand} == set(versions(aws, function))

    # Where CloudFormation could not do it, it goes back to what it knows of.
    def fail(*_: object) -> None:
        aws("lambda").update_alias(FunctionName=function, Name="live", FunctionVersion=own)
        raise CommandError("it could not be done", "", 1)

    served = serve(aws, function, "s3://mine/newest")
    monkeypatch.setattr(stack, "execute", fail)
    assert deploy(streaming, push(aws, "another")) == 1
    assert live(aws, function) == (served, "s3://mine/newest")
