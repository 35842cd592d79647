"""`huginn train` and `huginn eval`, as commands."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from functions.llm.checkpoints.checkpoint import load_checkpoint
from functions.llm.cli import main

SMALL = ["--width", "8", "--hidden", "8", "--layers", "1", "--length", "16", "--batch", "2", "--sample-every", "0"]
STARTED_WITHIN_S = 120


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    file = tmp_path / "raven.txt"
    file.write_text("once upon a midnight dreary, while I pondered, weak and weary\n" * 30)
    return file


def test_train_then_eval(text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The loss on the card is the one that eval finds."""
    out = tmp_path / "out"
    assert (
        main(["train", str(text_file), *SMALL, "--steps", "4", "--eval-every", "2", "--json", "--out", str(out)]) == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert report["finished"]

    command = ["eval", "--ckpt", str(out), str(text_file), "--validation", "0.1"]
    assert main([*command, "--window", "16"]) == 0
    windows = json.loads(capsys.readouterr().out)
    assert set(windows) == {"nats_per_token", "bits_per_byte", "perplexity", "tokens"}
    assert windows["nats_per_token"] == pytest.approx(report["val_nats"], rel=1e-5)
    assert main(command) == 0
    carried = json.loads(capsys.readouterr().out)
    card = (out / "card.md").read_text()
    assert f"| {windows['nats_per_token']:.4f} |" in card
    assert f"| {carried['nats_per_token']:.4f} |" in card


def test_ctrl_c_saves_and_resume_goes_on(text_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "functions.llm.cli", "train"]
    new = [*command, str(text_file), *SMALL, "--steps", "1000000", "--eval-every", "5", "--out", str(out)]
    with subprocess.Popen(new, stderr=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "200"}) as process:
        deadline = time.monotonic() + STARTED_WITHIN_S
        while not (out / "metrics.jsonl").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=STARTED_WITHIN_S)
    assert process.returncode == 130, errors
    assert f"go on with: huginn train --resume --out {out}" in errors
    load_checkpoint(out)
    saved = len((out / "metrics.jsonl").read_text().splitlines())

    recipe = out / "training" / "recipe.json"
    recipe.write_text(recipe.read_text().replace('"steps": 1000000', f'"steps": {5 * (saved + 2)}'))
    resumed = subprocess.run([*command, "--resume", "--out", str(out)], capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(5, 5 * (saved + 2) + 1, 5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no FILE to train on"),
        (["missing.txt"], "missing.txt: No such file or directory"),
        (["raven.txt", "--steps", "0"], "steps is 0; it must be at least 1"),
        (["raven.txt", "--lr", "nan"], "learning_rate is nan"),
        (["raven.txt", "--dtype", "int4"], "dtype is 'int4'; it must be float32 or bfloat16"),
        (["raven.txt", "--hid", "5"], "--hid is of the family lstm; the model is mingru"),
        (["raven.txt", "--model", "lstm", "--layers", "0"], "layers is 0; it must be at least 1"),
        (["raven.txt", "--dropout", "1"], "dropout is 1.0; it must be from 0 to below 1"),
        (["raven.txt", "--weights", "1", "2"], "--weights has 2 numbers for 1 files"),
        (["raven.txt", "--length", "5000"], "a row needs 5001"),
        (["--resume"], "there is no training to resume"),
        (["raven.txt", "--out", "raven.txt", *SMALL], "raven.txt: File exists"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(
    arguments: list[str],
    message: str,
    text_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(text_file.parent)
    assert main(["train", "--out", "out", *arguments]) == 3
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors
    assert not (text_file.parent / "out").exists()


def test_a_training_is_neither_overwritten_nor_resumed_as_another(
    text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    command = ["train", str(text_file), *SMALL, "--steps", "2", "--out", out]
    assert main(command) == 0
    assert main(command) == 3
    assert f"already holds a training; go on with: huginn train --resume --out {out}" in capsys.readouterr().err
    for option, name in {"--lr": "learning_rate", "--conv": "conv", "--hid": "hid"}.items():
        assert main(["train", "--resume", option, "5", "--out", out]) == 3
        assert f"{name} is 5" in capsys.readouterr().err


def test_a_token_before_the_text_has_its_first_token_scored(
    text_file: Path, checkpoints_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is scored after the prefix is what is scored of a text that begins with it."""
    checkpoint = checkpoints_folder / "tiny-char"
    text = text_file.read_text("utf-8")
    [first] = load_checkpoint(checkpoint).tokenizer.encode(text[0])
    rest = text_file.with_name("rest.txt")
    rest.write_text(text[1:], "utf-8")

    def scored(*arguments: str) -> Any:
        assert main(["eval", "--ckpt", str(checkpoint), *arguments]) == 0
        return json.loads(capsys.readouterr().out)

    assert scored(str(rest), "--prefix", str(first)) == scored(str(text_file))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ckpt", "nowhere", "raven.txt"], "nowhere: no such folder"),
        (["--ckpt", "{}", "missing.txt"], "missing.txt: No such file"),
        (["--ckpt", "{}", "raven.txt", "--window", "0"], "--window is 0"),
        (["--ckpt", "{}", "raven.txt", "--validation", "2"], "--validation is 2.0"),
        (["--ckpt", "{}", "one.txt"], "1 tokens to score"),
        (["--ckpt", "{}", "raven.txt", "--prefix", "-1"], "--prefix is -1; it must be 0 to "),
        (["--ckpt", "{}", "raven.txt", "--prefix", "100000"], "--prefix is 100000"),
    ],
)
def test_what_cannot_be_evaluated_is_said_in_one_line(
    arguments: list[str],
    message: str,
    text_file: Path,
    checkpoints_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(text_file.parent)
    (text_file.parent / "one.txt").write_text("a")
    assert main(["eval", *(argument.format(checkpoints_folder / "tiny-char") for argument in arguments)]) == 3
    assert message in capsys.readouterr().err
