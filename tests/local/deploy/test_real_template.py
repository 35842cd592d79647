"""The stack that is really deployed: Chalice's template with the tiers, transformed by SAM, in moto."""

import io
import json
import sys
import zipfile

import pytest

from local.cli import main
from local.deploy import parts
from local.template import build_template
from tests.infra import moto_shim
from tests.local.deploy import change_sets
from tests.runtime.emulator import Emulator

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


def test_deploy_and_destroy(template, moto_url, aws, image, monkeypatch, capsys):
    """Everything that the template says is created, the stream is tried, and all but the data is deleted again."""
    moto_shim.install()
    change_sets.install()
    monkeypatch.setattr(parts, "build_parts", lambda _: template)
    with Emulator(COMMAND) as emulator:
        assert main(["deploy", "--stage", "staging", "--image", image, "--probe-url", emulator.url, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    outputs = {"PageUrl", "BackendUrl", "LlmUrl", "CheckpointBucket", "BatchQueueUrl", "LlmFunctionName"}
    assert outputs <= set(report["outputs"])
    (stack,) = aws("cloudformation").describe_stacks(StackName="huginn-staging")["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
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
