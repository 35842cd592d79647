"""`huginn import`: from a torch file to a folder that the others can use."""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from functions.llm.checkpoints.checkpoint import load_checkpoint
from functions.llm.checkpoints.torch_import import import_torch_checkpoint
from functions.llm.commands import import_checkpoint


@pytest.fixture(scope="module")
def source(shared_dir: Path) -> Path:
    return shared_dir / "fixtures" / "huginn-lstm-char.pt"


def huginn_import(*words: object) -> int:
    parser = argparse.ArgumentParser("huginn import")
    import_checkpoint.configure(parser)
    return import_checkpoint.run(parser.parse_args([str(word) for word in words]))


def test_the_folder_holds_the_imported_model(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Loaded again it is the model and the tokenizer that were read, and the next command is told."""
    assert huginn_import(source, tmp_path / "raven") == 0
    checkpoint = load_checkpoint(tmp_path / "raven")
    model, tokenizer = import_torch_checkpoint(source)
    assert checkpoint.model.config == model.config
    assert checkpoint.model.params.keys() == model.params.keys()
    for name, param in model.params.items():
        np.testing.assert_array_equal(checkpoint.model.params[name], param)
    assert checkpoint.tokenizer == tokenizer
    assert hashlib.sha256(source.read_bytes()).hexdigest() in (tmp_path / "raven" / "card.md").read_text()
    out, err = capsys.readouterr()
    assert "lstm, 959,330 parameters, 98 tokens (char)" in out
    assert f"huginn generate --ckpt {tmp_path / 'raven'} --seed" in out
    assert err == ""


def test_the_report_as_json(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert huginn_import(source, tmp_path / "raven", "--json") == 0
    weights = (tmp_path / "raven" / "model.safetensors").read_bytes()
    assert json.loads(capsys.readouterr().out) == {
        "checkpoint": str(tmp_path / "raven"),
        "family": "lstm",
        "tokenizer": "char",
        "vocab_size": 98,
        "parameters": 959_330,
        "digest": hashlib.sha256(weights).hexdigest(),
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_checkpoint_is_replaced_only_by_force(
    source: Path, checkpoints_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "raven").mkdir()
    for name, content in contents(checkpoints_folder / "tiny-byte").items():
        (tmp_path / "raven" / name).write_bytes(content)
    before = contents(tmp_path)
    assert huginn_import(source, tmp_path / "raven") == 3
    assert contents(tmp_path) == before
    assert (
        f"is already there\n  replace it: huginn import {source} {tmp_path / 'raven'} --force"
        in capsys.readouterr().err
    )
    assert huginn_import(source, tmp_path / "raven", "--force") == 0
    assert load_checkpoint(tmp_path / "raven").tokenizer.kind == "char"


@pytest.mark.parametrize(
    ("there", "message"),
    [
        ("raven", "is a file"),
        ("raven/diary.txt", "is a folder of something else"),
        ("raven/training/recipe.json", "holds a training of its own"),
    ],
)
def test_what_is_no_checkpoint_is_never_replaced(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], there: str, message: str
):
    """--force is no way to lose something else."""
    file = tmp_path / there
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("precious")
    assert huginn_import(source, tmp_path / "raven", "--force") == 3
    assert message in capsys.readouterr().err
    assert contents(tmp_path) == {there: b"precious"}


def test_a_bad_file_leaves_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "rnn.pt").write_bytes(b"hello")
    assert huginn_import(tmp_path / "rnn.pt", tmp_path / "raven") == 3
    assert capsys.readouterr().err.startswith(f"huginn: {tmp_path / 'rnn.pt'}: is no torch checkpoint")
    assert [path.name for path in tmp_path.iterdir()] == ["rnn.pt"]


def test_a_place_that_cannot_be_written_is_named(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").write_text("")
    assert huginn_import(source, tmp_path / "file" / "raven") == 3
    assert str(tmp_path / "file") in capsys.readouterr().err
