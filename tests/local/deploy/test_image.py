"""The model's image: found in ECR, or built by Docker, of which there is a stand-in that notes what it is asked."""

import os
from pathlib import Path

import pytest

from local.deploy.account import find_account
from local.deploy.image import build_image, find_image, refuse_missing_docker
from local.errors import CommandError
from tests.local.deploy.conftest import ACCOUNT, REGION, REPOSITORY, push


@pytest.fixture
def account(aws):
    """Whose images they are."""
    return find_account(None, None, None)


@pytest.fixture
def docker(tmp_path, monkeypatch) -> Path:
    """A `docker` that does nothing but write down its arguments, and fails where FAILS says so."""
    log, program = tmp_path / "docker.log", tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        f'echo "$BUILDX_NO_DEFAULT_ATTESTATIONS $*" >> {log}\n'
        '[ "$1" = "$FAILS" ] && exit 9\n'
        '[ "$1" = image ] && echo sha256:0123456789abcdef0123\n'
        f'[ "$1" = login ] && cat >> {log}\n'
        "exit 0\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return log


def test_an_image_is_known_by_its_digest(account, aws, image):
    """A tag that is moved later changes nothing that is deployed."""
    found = find_image(account, image)
    digest = aws("ecr").describe_images(repositoryName="huginn-llm")["imageDetails"][0]["imageDigest"]
    assert found.uri == f"{REPOSITORY}@{digest}"
    assert find_image(account, found.uri) == found


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("huginn:latest", "is no image in ECR"),
        (f"{REPOSITORY}", "is no image in ECR by tag or digest"),
        (f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/huginn-llm:mine", "the image is in us-east-1, the stack in"),
        (f"{REPOSITORY}:other", "there is no image"),
        (f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/other:mine", "there is no image"),
    ],
)
def test_an_image_that_lambda_could_not_run(account, image, uri, reason):
    """Before anything is built or uploaded."""
    with pytest.raises(CommandError, match=reason):
        find_image(account, uri)


def test_a_list_of_images_is_refused(account, aws):
    """BuildKit makes one of its attestations, and Lambda says only that it does not support the media type."""
    listed = push(aws, "listed", "application/vnd.oci.image.index.v1+json")
    with pytest.raises(CommandError, match="list of images") as refused:
        find_image(account, listed)
    assert "--provenance=false" in str(refused.value)


def test_built_and_pushed(account, aws, docker, tmp_path):
    """For Lambda's processors, without attestations, the password by standard input, under the content's name."""
    pushed = push(aws, "0123456789abcdef")
    built = build_image(account, tmp_path, lambda _: None)
    assert built.uri.startswith(f"{REPOSITORY}@sha256:")
    said = docker.read_text().splitlines()
    assert said[0] == f"1 build --platform linux/amd64 -f functions/llm/Dockerfile -t {REPOSITORY}:building ."
    assert said[3].startswith("1 login --username AWS --password-stdin ")
    assert said[-1].endswith(f"1 push {pushed}")


def test_built_with_what_a_collector_needs(account, aws, docker, tmp_path):
    """The image that sends its metrics on has the library for it; the other does without."""
    push(aws, "0123456789abcdef")
    build_image(account, tmp_path, lambda _: None, "telemetry")
    assert " --build-arg ALSO=telemetry -t " in docker.read_text().splitlines()[0]


def test_the_repository_is_made_once(account, aws, docker, tmp_path):
    """In an account that has none; it is there although the push, a stand-in's, brought nothing."""
    for _ in range(2):
        with pytest.raises(CommandError, match="there is no image"):
            build_image(account, tmp_path, lambda _: None)
    assert [each["repositoryName"] for each in aws("ecr").describe_repositories()["repositories"]] == ["huginn-llm"]


def test_a_build_that_fails(account, docker, tmp_path, monkeypatch):
    """Is named, and nothing is pushed."""
    monkeypatch.setenv("FAILS", "build")
    with pytest.raises(CommandError, match="`docker build` failed with 9"):
        build_image(account, tmp_path, lambda _: None)
    assert "push" not in docker.read_text()


def test_no_docker(monkeypatch, tmp_path, docker):
    """Not there or not running: both are said before minutes of work, with the image that is deployed."""
    refuse_missing_docker(None)
    monkeypatch.setenv("FAILS", "version")
    with pytest.raises(CommandError, match="the deployed one: --image some@sha256:1"):
        refuse_missing_docker("some@sha256:1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CommandError, match="--image URI"):
        refuse_missing_docker(None)
