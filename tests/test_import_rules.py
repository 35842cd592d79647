"""Every import rule is kept by the tree, and broken by a line that should break it."""

import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
CONFIG = ".importlinter"

# (rule, file, the line that breaks it and no other rule)
VIOLATIONS = [
    ("independent-functions", "backend/controllers/wire.py", "import functions.frontend.languages"),
    ("functions-know-nothing-local", "frontend/settings.py", "import local.errors"),
    ("llm-layers", "llm/ops/dense.py", "import functions.llm.models.lstm"),
    ("llm-layers", "llm/inference/sampling.py", "import functions.llm.settings"),
    ("llm-layers", "llm/utils.py", '"""A module that no layer has a place for."""'),
    ("backend-layers", "backend/domain/prompt.py", "import functions.backend.application.llm_gateway"),
    ("backend-layers", "backend/controllers/wire.py", "import functions.backend.adapters.event_stream"),
    ("backend-layers", "backend/utils.py", '"""A module that no layer has a place for."""'),
    ("frontend-layers", "frontend/backend_client.py", "import functions.frontend.pages"),
    ("frontend-layers", "frontend/utils.py", '"""A module that no layer has a place for."""'),
    ("runtime-layers", "runtime/context.py", "import functions.runtime.service"),
    ("runtime-layers", "runtime/utils.py", '"""A module that no layer has a place for."""'),
    ("runtime-for-anybody", "runtime/reply.py", "import httpx"),
    ("operations-layers", "../infra/canary.py", "import infra.batch"),
    ("operations-layers", "../infra/utils.py", '"""A module that no layer has a place for."""'),
    ("operations-alone", "../infra/batch.py", "import functions.backend.settings"),
    ("web-tiers-without-numbers", "frontend/form.py", "import numpy"),
    ("web-tiers-without-numbers", "backend/adapters/llm_wire.py", "import jax.numpy"),
    ("backend-core-without-frameworks", "backend/domain/prompt.py", "import pydantic"),
    ("backend-core-without-frameworks", "backend/application/generate_stream.py", "from httpx import AsyncClient"),
    ("serving-without-training", "llm/handler.py", "import optax"),
    ("serving-without-training", "llm/models/lstm.py", "from flax import nnx"),  # reached through many others
]


def rules() -> dict[str, str]:
    """The rules' names in the output, by their names in the file."""
    config = ConfigParser()
    config.read(REPOSITORY / CONFIG)
    prefix = "importlinter:contract:"
    return {section.removeprefix(prefix): config[section]["name"] for section in config.sections() if prefix in section}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of what the rules are about, to be spoiled."""
    root = tmp_path_factory.mktemp("tree")
    ignore = shutil.ignore_patterns("__pycache__", "static", "templates")
    for name in ("functions", "infra", "local"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=ignore)
    shutil.copy(REPOSITORY / CONFIG, root)
    return root


# The environment has a checkout on its path, in which `infra`, no regular package, would be found a second time.
LINT = f"""
import os, sys
sys.path = [path for path in sys.path if path == os.getcwd() or not os.path.exists(os.path.join(path, {CONFIG!r}))]
from importlinter.cli import lint_imports_command
lint_imports_command()
"""


def broken_rules(tree: Path) -> set[str]:
    """What lint-imports says of a tree: the rules that it calls broken, after having checked them all."""
    result = subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache"],
        cwd=tree,
        env={**os.environ, "COLUMNS": "200", "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )
    verdicts = dict(re.findall(r"^(.*?) (KEPT|BROKEN)", result.stdout, re.MULTILINE))
    assert set(verdicts) == set(rules().values()), result.stdout + result.stderr
    names = {name: rule for rule, name in rules().items()}
    return {names[name] for name, verdict in verdicts.items() if verdict == "BROKEN"}


def test_tree_keeps_every_rule(tree):
    """The directions that .importlinter draws are those of the code."""
    assert broken_rules(tree) == set()


def test_every_rule_has_a_violation():
    """A rule that nobody has seen fail may check nothing."""
    assert {rule for rule, _, _ in VIOLATIONS} == set(rules())


@pytest.mark.parametrize(("rule", "file", "line"), VIOLATIONS)
def test_violation_breaks_its_rule(tree, rule, file, line):
    """One wrong line breaks the rule that is about it, and no other."""
    path = tree / "functions" / file
    before = path.read_text("utf-8") if path.exists() else None
    try:
        path.write_text(f"{before or ''}\n{line}\n", "utf-8")
        assert broken_rules(tree) == {rule}
    finally:
        path.unlink() if before is None else path.write_text(before, "utf-8")
