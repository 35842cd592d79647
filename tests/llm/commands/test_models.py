"""`huginn models`: what is there."""

import json
import shutil

import pytest

from functions.llm import cli
from functions.llm.inference.model_store import describe_checkpoint


@pytest.fixture
def folder(checkpoints_folder, tmp_path, monkeypatch):
    """A folder of two models, tiny-char being the default."""
    for name in ("tiny-byte", "tiny-char"):
        shutil.copytree(checkpoints_folder / name, tmp_path / "ckpts" / name)
    monkeypatch.setenv("CKPT_PATH", str(tmp_path / "ckpts" / "tiny-char"))
    return tmp_path / "ckpts"


def test_a_table_for_people(folder, capsys):
    """A line for each, the default marked."""
    assert cli.main(["models"]) == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["name", "family", "parameters", "vocabulary", "tokenizer", "size"]
    assert first.split()[:2] == ["tiny-byte", "lstm"]
    assert second.split()[:3] == ["tiny-char", "*", "mingru"]


def test_json_for_programs(folder, capsys):
    """As GET /models words it."""
    assert cli.main(["models", str(folder), "--json"]) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert [(model["name"], model["default"]) for model in models] == [("tiny-byte", False), ("tiny-char", True)]
    assert models[0]["parameters"] == describe_checkpoint(folder / "tiny-byte").parameters


def test_a_broken_one_is_left_out_and_told(folder, capsys):
    """The others are listed."""
    (folder / "tiny-byte" / "config.json").write_text("{")
    assert cli.main(["models", "--json"]) == 0
    out, err = capsys.readouterr()
    assert [model["name"] for model in json.loads(out)["models"]] == ["tiny-char"]
    assert err.startswith("huginn: left out: ")
    assert "config.json" in err


def test_a_folder_that_is_not_there(tmp_path, capsys):
    """Bad input, with the command that makes a checkpoint."""
    assert cli.main(["models", str(tmp_path / "none")]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert "no such folder" in err
    assert "huginn train --help" in err


def test_another_folder_has_no_default(folder, tmp_path, capsys):
    """The default is the one that would be served."""
    shutil.copytree(folder, tmp_path / "other")
    assert cli.main(["models", str(tmp_path / "other"), "--json"]) == 0
    assert not any(model["default"] for model in json.loads(capsys.readouterr().out)["models"])
