"""What is deployed, built on this machine: the template, and the zips that it is about."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.deploy.artefacts import content_key


@dataclass(frozen=True)
class Parts:
    """A template, files by the keys that they have in the bucket, and these keys by the template's parameters."""

    template: Mapping[str, Any]
    files: Mapping[str, bytes]
    keys: Mapping[str, str]

    @property
    def template_body(self) -> str:
        """The template as CloudFormation is given it: without a blank, for its limits are in bytes."""
        return json.dumps(self.template, separators=(",", ":"))


def build_parts(folder: Path) -> Parts:
    """Give the parts, built in a folder: Chalice's template and zip, and the zips of page and API."""
    from local.package import build_zip
    from local.template import build_template

    built = build_template(folder)
    zips = {
        "FrontendKey": build_zip("frontend", folder).path,
        "BackendKey": build_zip("backend", folder).path,
        "OperationsKey": built / "deployment.zip",
    }
    return gather(json.loads((built / "sam.json").read_text("utf-8")), zips)


def gather(template: Mapping[str, Any], zips: Mapping[str, Path]) -> Parts:
    """Give the parts of a template, and of zips by the parameters that name them."""
    files: dict[str, bytes] = {}
    keys: dict[str, str] = {}
    for parameter, path in zips.items():
        content = path.read_bytes()
        keys[parameter] = content_key(path.stem, content, path.suffix.lstrip("."))
        files[keys[parameter]] = content
    return Parts(template, files, keys)
