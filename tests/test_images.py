"""The Dockerfiles, read: what an image may hold and who runs in it. Building them needs an engine."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
TIERS = ["frontend", "backend", "llm"]
IMAGES = [*TIERS, "aws"]


def instructions(image: str) -> list[str]:
    """One string for each instruction, comments gone and continued lines joined."""
    folder = "functions" if image in TIERS else "local"
    text = (REPOSITORY / folder / image / "Dockerfile").read_text("utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return re.sub(r"\s*\\\n\s*", " ", "\n".join(lines)).splitlines()


def stages(image: str) -> list[list[str]]:
    """The instructions, cut before every FROM."""
    found: list[list[str]] = []
    for instruction in instructions(image):
        if instruction.startswith("FROM "):
            found.append([])
        found[-1].append(instruction)
    return found


@pytest.mark.parametrize("image", IMAGES)
def test_compilers_and_caches_stay_in_the_first_stage(image):
    """The image is the base and what was copied out of the build: nothing is installed into it."""
    build, last = stages(image)
    assert build[0] == "FROM python:3.12-slim AS build"
    assert last[0] == "FROM python:3.12-slim"
    assert not [line for line in last if line.startswith(("RUN", "ADD"))]
    assert all(line.startswith("COPY --from=build ") for line in last if line.startswith("COPY"))


@pytest.mark.parametrize("image", IMAGES)
def test_nobody_is_root(image):
    """By number, so that an orchestrator can see it without the image's /etc/passwd."""
    last = stages(image)[-1]
    assert "USER 65534:65534" in last
    assert last.index("USER 65534:65534") < next(i for i, line in enumerate(last) if line.startswith("CMD"))


@pytest.mark.parametrize("image", IMAGES)
def test_a_clone_s_umask_does_not_matter(image):
    """COPY keeps modes, and who runs the image does not own the files: all that is copied is opened for all to read."""
    build, last = stages(image)
    opened = [line for line in build if line.startswith("RUN chmod -R a+rX ")]
    folders = {folder for line in opened for folder in line.partition(" && ")[0].split()[4:]}
    kept = {line.split()[2] for line in last if line.startswith("COPY")}
    # What the build itself makes is everybody's to read.
    assert folders == kept - {"/opt/venv", "/opt/huginn-cache"}


@pytest.mark.parametrize("tier", TIERS)
def test_an_image_holds_one_function_and_its_own_packages(tier):
    """With hashes; and what serves it: elsewhere than on Lambda, and there."""
    build = " ".join(stages(tier)[0])
    assert set(re.findall(r"COPY functions/(\w+)", build)) == {tier, "server", "runtime"}
    assert "--require-hashes" in build
    # More only where whoever builds it says so.
    assert re.findall(r"for name in (.*?); do", build) == [f"{tier} $ALSO"]
    assert "ARG ALSO= " in build


@pytest.mark.parametrize("tier", TIERS)
def test_bytecode_is_compiled_and_needs_no_clock(tier):
    """A read-only image can keep none of its own."""
    build = [line for line in stages(tier)[0] if "compileall" in line]
    assert len(build) == 1
    assert "unchecked-hash" in build[0]
    assert build[0].endswith("/opt/venv/lib /app/functions")


def test_the_build_sees_only_what_it_names():
    """Everything is left out first, so neither a key nor a checkpoint of one's own can end up in an image."""
    lines = [line for line in (REPOSITORY / ".dockerignore").read_text("utf-8").splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    assert {line for line in lines if line.startswith("!")} == {
        "!functions", "!requirements", "!ckpts/muninn-char", "!local/aws/serve.py",
    }  # fmt: skip
