"""Credentials and region, before anything is begun."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from local.cli import main
from tests.local.deploy.conftest import ACCOUNT

REPOSITORY = Path(__file__).parents[3]
ARGUMENTS = {"deploy": ["deploy", "--dry-run"], "destroy": ["destroy", "--yes"]}


@pytest.mark.parametrize("command", ARGUMENTS)
def test_without_credentials_one_clear_sentence(command, capsys):
    """What is needed and how it is had, no traceback, and at once: nothing is packaged first."""
    assert main([*ARGUMENTS[command], "--region", "eu-central-1"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert " ".join(said.err.split()) == (
        "huginn: deploying needs AWS credentials, and there are none; run `aws configure`, or set AWS_PROFILE, or "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )


def test_without_a_region(aws, monkeypatch, capsys):
    """Nobody guesses where."""
    monkeypatch.delenv("AWS_REGION")
    assert main(["deploy", "--dry-run"]) == 2
    assert "no AWS region is chosen" in capsys.readouterr().err


def test_a_region_that_is_none(aws, capsys):
    """The known ones are listed."""
    assert main(["deploy", "--dry-run", "--region", "eu-centrl-1"]) == 2
    said = capsys.readouterr().err
    assert "'eu-centrl-1' is no AWS region" in said
    assert "eu-central-1" in said


def test_a_profile_that_is_none(aws, capsys):
    """Named as it was given."""
    assert main(["destroy", "--profile", "nobody"]) == 2
    assert "nobody" in capsys.readouterr().err


def test_no_aws_at_the_endpoint(aws, monkeypatch, capsys):
    """A network that is not there is another class of failure."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert main(["destroy", "--endpoint-url", "http://127.0.0.1:9"]) == 4
    assert "AWS does not answer" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["", "Prod", "1st", "a_b", "a" * 21])
def test_a_stage_that_aws_cannot_name(stage, capsys):
    """Its name is part of bucket names."""
    assert main(["deploy", "--stage", stage]) == 2
    assert re.search(r"--stage '.*' is no name", capsys.readouterr().err)


def test_there_is_nothing_to_destroy(aws, capsys):
    """The stack, the region and the account that were looked at."""
    assert main(["destroy", "--stage", "staging"]) == 3
    assert f"there is no stack huginn-staging in eu-central-1, account {ACCOUNT}" in capsys.readouterr().err


def test_help_needs_no_boto3():
    """Nor does a command that has nothing to do with AWS."""
    program = "import sys; import local.cli; print({'boto3', 'botocore', 'chalice'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
