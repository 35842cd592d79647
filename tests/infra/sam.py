"""The SAM transform, which CloudFormation runs on AWS's side, run here without asking anybody."""

import copy
from collections.abc import Mapping
from typing import Any
from unittest import mock

from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

REGION = "us-east-1"

PARAMETERS = {
    "LlmImageUri": f"123456789012.dkr.ecr.{REGION}.amazonaws.com/huginn@sha256:{'0' * 64}",
    "ArtefactBucket": "artefacts",
    "FrontendKey": "frontend.zip",
    "BackendKey": "backend.zip",
    "OperationsKey": "deployment.zip",
}
"""What the template has no default for."""


def transform(template: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The template of plain CloudFormation that SAM makes of `template`."""
    values = {name: each["Default"] for name, each in template.get("Parameters", {}).items() if "Default" in each}
    # No managed policy may be needed: every role says what it may do.
    translator = Translator({}, Parser())
    with mock.patch.dict("os.environ", {"AWS_DEFAULT_REGION": REGION}):
        plain: dict[str, Any] = translator.translate(copy.deepcopy(dict(template)), {**values, **parameters})
    plain.pop("Transform", None)
    return plain
