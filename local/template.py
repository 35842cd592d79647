"""The one CloudFormation template: Chalice's, from infra/app.py, with infra/tiers.yaml laid over it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from local.errors import CommandError

INFRA = Path(__file__).parents[1] / "infra"

# Chalice's own name for it; what differs from stage to stage are the template's parameters.
CHALICE_STAGE = "prod"

# The earliest time that a zip can hold: the same content shall give the same bytes.
ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def build_template(out: Path) -> Path:
    """Give the folder ``out`` with `sam.json` and `deployment.zip`, which its parameter OperationsKey names.

    Nothing is asked of AWS or of a package index, and the same sources give the same bytes.

    Raises:
        CommandError: Chalice is not installed, or refuses what it finds in infra/.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="huginn-template-") as temporary:
        project = Path(temporary) / "project"
        _stage_project(project)
        tiers = Path(temporary) / "tiers.json"
        tiers.write_text(json.dumps(read_template(INFRA / "tiers.yaml")), "utf-8")
        packaged = Path(temporary) / "packaged"
        _run_chalice(project, tiers, packaged)
        template = json.loads((packaged / "sam.json").read_text("utf-8"))
        # CloudFormation takes 51,200 bytes from a caller, which indentation alone would exceed.
        (out / "sam.json").write_text(json.dumps(template, separators=(",", ":"), sort_keys=True) + "\n", "utf-8")
        _repack(packaged / "deployment.zip", out / "deployment.zip")
    return out


def read_template(path: Path) -> dict[str, Any]:
    """Give a YAML template as CloudFormation reads JSON: `!Ref X` as `{"Ref": "X"}`, aliases and merges written out."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
        """Knows CloudFormation's short tags, without teaching them to every other loader of the process."""

    def expand(loader: yaml.SafeLoader, name: str, node: yaml.Node) -> dict[str, Any]:
        value: Any
        if isinstance(node, yaml.ScalarNode):
            value = loader.construct_scalar(node)
        elif isinstance(node, yaml.SequenceNode):
            value = loader.construct_sequence(node, deep=True)
        else:
            value = loader.construct_mapping(node, deep=True)
        if name == "GetAtt" and isinstance(value, str):
            value = value.split(".", 1)
        return {name if name in {"Ref", "Condition"} else f"Fn::{name}": value}

    Loader.add_multi_constructor("!", expand)
    # A SafeLoader, with tags of ours.
    template: dict[str, Any] = yaml.load(path.read_text("utf-8"), Loader)  # noqa: S506
    return template


def _stage_project(project: Path) -> None:
    # Chalice zips app.py, and what lies in vendor/ as it lies there: so `import infra.canary` is the same import on
    # Lambda as here. In a folder of its own, as Chalice writes into its project.
    ignore = shutil.ignore_patterns("__pycache__", "deployments", "deployed")
    shutil.copytree(INFRA / ".chalice", project / ".chalice", ignore=ignore)
    (project / "vendor" / "infra").mkdir(parents=True)
    shutil.copy(INFRA / "app.py", project)
    for module in INFRA.glob("*.py"):
        if module.name != "app.py":
            shutil.copy(module, project / "vendor" / "infra")


def _run_chalice(project: Path, tiers: Path, out: Path) -> None:
    command = [sys.executable, "-c", "from chalice.cli import main; main()", "package"]
    command += ["--stage", CHALICE_STAGE, "--merge-template", str(tiers), str(out)]
    # Chalice wants a region for the names of services, and writes none into the template.
    environment = {"AWS_DEFAULT_REGION": "us-east-1", **os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(  # noqa: S603
        command, cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        said = (result.stderr.strip() or result.stdout.strip()).splitlines()[-1:]
        raise CommandError(
            f"The template cannot be made: chalice says {' '.join(said)!r}.",
            "Install what it needs: make setup",
            1,
        )


def _repack(source: Path, target: Path) -> None:
    with zipfile.ZipFile(source) as found, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in sorted(found.namelist()):
            entry = zipfile.ZipInfo(name, ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            packed.writestr(entry, found.read(name))
