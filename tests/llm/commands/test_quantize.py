"""`huginn quantize`: fewer bytes, hardly a worse model, and nothing lost."""

import json
from pathlib import Path

import numpy as np
import pytest

from functions.llm.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from functions.llm.checkpoints.quantized_model import NotQuantizableError, quantize_model
from functions.llm.cli import main
from functions.llm.commands.default_checkpoint import default_checkpoint
from functions.llm.ops.quantized import QuantizedWeight, dequantize

TINY = ["--width", "8", "--hidden", "8", "--layers", "1", "--batch", "4", "--length", "16"]
TEXT = "the raven sat on the old oak, and said nothing at all today\n" * 40


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    file = tmp_path / "raven.txt"
    file.write_text(TEXT)
    return file


def quantized(arguments: list[object], capsys: pytest.CaptureFixture[str]) -> dict:
    assert main(["quantize", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_bundled_model_is_at_most_0_005_nats_worse_in_int8(
    shared_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the validation text of its training, from an empty memory every 256 characters, as its card says."""
    report = quantized(
        [default_checkpoint({}), tmp_path / "int8", "--text", shared_dir / "data" / "tinyshakespeare.txt",
         "--window", "256"], capsys,
    )  # fmt: skip
    assert report["tokens"] == 111_539
    assert report["before"]["nats_per_token"] == pytest.approx(1.4630, abs=5e-5)
    assert abs(report["nats_worse"]) <= 0.005
    assert report["nats_worse"] == report["after"]["nats_per_token"] - report["before"]["nats_per_token"]
    assert report["bytes"] < 0.27 * report["bytes_before"]
    card = (tmp_path / "int8" / "card.md").read_text()
    assert f"| int8 | {report['after']['nats_per_token']:.4f} |" in card
    assert "| float32 | 1.4630 |" in card


def test_an_lstm_is_at_most_0_005_nats_worse_in_int8(
    shared_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The predecessor's, on French of which it knows the language and not the text."""
    assert main(["import", str(shared_dir / "fixtures" / "huginn-lstm-char.pt"), str(tmp_path / "lstm")]) == 0
    capsys.readouterr()
    novels = shared_dir / "data" / "novels-fr.jsonl.xz"
    report = quantized(
        [tmp_path / "lstm", tmp_path / "int8", "--text", novels, "--validation", "0.001", "--window", "256"], capsys
    )
    assert report["tokens"] > 40_000
    assert abs(report["nats_worse"]) <= 0.005


@pytest.mark.parametrize("name", ["tiny-char", "tiny-byte"])
@pytest.mark.parametrize("dtype", ["int8", "bfloat16"])
def test_the_matrices_become_smaller_and_all_else_stays(
    checkpoints_folder: Path, tmp_path: Path, name: str, dtype: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each weight within half a step, 1/254 and 1/256 of its row's largest; all else to the bit."""
    report = quantized([checkpoints_folder / name, tmp_path / "out", "--dtype", dtype], capsys)
    before, after = load_checkpoint(checkpoints_folder / name), load_checkpoint(tmp_path / "out")
    assert report["digest"] == after.digest
    assert (report["bytes"], report["bytes_before"]) == (after.size_bytes, before.size_bytes)
    assert report["before"] is report["after"] is report["nats_worse"] is None
    assert after.tokenizer == before.tokenizer
    for param_name, param in before.model.params.items():
        found = after.model.params[param_name]
        if param_name in before.model.config.dense_weights():
            assert isinstance(found, QuantizedWeight) == (dtype == "int8")
            assert str(found.dtype) == dtype
            found = dequantize(found) if isinstance(found, QuantizedWeight) else found.astype("float32")
            largest = np.abs(param).max(axis=1, keepdims=True)
            assert (np.abs(np.asarray(found) - param) <= largest / 254 * 1.0001).all()
        else:
            np.testing.assert_array_equal(found, param)


def test_a_quantized_model_generates(
    checkpoints_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for dtype in ("int8", "bfloat16"):
        out = tmp_path / dtype
        assert main(["quantize", str(checkpoints_folder / "tiny-char"), str(out), "--dtype", dtype]) == 0
        said = capsys.readouterr().out
        assert f"{out}: {dtype}, " in said
        assert "--text FILE compares" in said
        assert "the loss was not measured" in (out / "card.md").read_text()
        assert main(["generate", "--ckpt", str(out), "--seed", "the", "--chars", "5", "--random-seed", "1"]) == 0
        assert len(capsys.readouterr().out) >= 5
    assert main(["models", str(tmp_path), "--json"]) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    whole = load_checkpoint(checkpoints_folder / "tiny-char")
    assert {model["parameters"] for model in models} == {sum(p.size for p in whole.model.params.values())}
    assert all(model["size_bytes"] < whole.size_bytes for model in models)


def test_the_texts_of_its_training_are_found(
    text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loss before is then the one that training measured; without the text there is none to compare."""
    out = tmp_path / "trained"
    train = ["train", str(text_file), *TINY, "--steps", "4", "--eval-every", "2", "--validation", "0.2"]
    assert main([*train, "--json", "--out", str(out)]) == 0
    trained = json.loads(capsys.readouterr().out)
    report = quantized([out, tmp_path / "int8", "--window", "16"], capsys)
    assert (report["texts"], report["validation"]) == (["raven.txt"], 0.2)
    assert report["before"]["nats_per_token"] == pytest.approx(trained["val_nats"], rel=1e-5)
    card = (tmp_path / "int8" / "card.md").read_text()
    # The older card follows, its headings below this one's.
    assert [line for line in card.splitlines() if line.startswith(("# ", "## "))] == [
        "# int8",
        "## The card of trained",
    ]
    assert "#### Training" in card
    text_file.unlink()
    assert quantized([out, tmp_path / "int8", "--force"], capsys)["before"] is None


def test_several_texts_are_one_loss(
    text_file: Path, checkpoints_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sum over their tokens, each text from an empty memory."""
    other = tmp_path / "other.txt"
    other.write_text("and nothing more " * 30)
    ckpt, whole = checkpoints_folder / "tiny-char", ["--validation", "1"]
    both, first, second = (
        quantized([ckpt, tmp_path / "out", "--force", "--text", *texts, *whole], capsys)
        for texts in ([text_file, other], [text_file], [other])
    )
    assert both["tokens"] == first["tokens"] + second["tokens"] == len(TEXT) - 1 + 509
    for when in ("before", "after"):
        nats = sum(report[when]["nats_per_token"] * report["tokens"] for report in (first, second))
        assert both[when]["nats_per_token"] == pytest.approx(nats / both["tokens"], rel=1e-9)


def test_a_loss_that_grew_too_much_is_pointed_out(
    text_file: Path, checkpoints_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The checkpoint is made all the same: whether it is good enough is for its owner to say."""
    monkeypatch.setattr("functions.llm.commands.quantize.TOLERATED_NATS", -1.0)
    command = ["quantize", str(checkpoints_folder / "tiny-char"), str(tmp_path / "out"), "--text", str(text_file)]
    assert main(command) == 0
    assert "the loss grew by" in capsys.readouterr().err
    load_checkpoint(tmp_path / "out")


@pytest.mark.parametrize("dtype", ["int8", "bfloat16"])
def test_what_is_quantized_already_is_refused(
    checkpoints_folder: Path, tmp_path: Path, dtype: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rounding twice loses more than it must."""
    assert main(["quantize", str(checkpoints_folder / "tiny-char"), str(tmp_path / "once"), "--dtype", dtype]) == 0
    for again in ("int8", "bfloat16"):
        assert main(["quantize", str(tmp_path / "once"), str(tmp_path / "twice"), "--dtype", again]) == 3
        said = capsys.readouterr().err
        assert f"head.weight is {dtype}, expected float32" in said
        assert "quantize the float32 checkpoint" in said
    assert not (tmp_path / "twice").exists()


def test_weights_that_are_not_finite_are_refused(checkpoints_folder: Path) -> None:
    model = load_checkpoint(checkpoints_folder / "tiny-char").model
    broken = dict(model.params) | {"head.weight": model.params["head.weight"].at[0, 0].set(np.inf)}
    with pytest.raises(NotQuantizableError, match=r"head\.weight has numbers that are not finite"):
        quantize_model(type(model)(model.config, broken), "int8")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_only_a_checkpoint_is_replaced_only_by_force_and_never_the_source(
    checkpoints_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = load_checkpoint(checkpoints_folder / "tiny-char")
    save_checkpoint(tmp_path / "source", source.model, source.tokenizer, "# source\n")
    save_checkpoint(tmp_path / "there", source.model, source.tokenizer, "# there\n")
    (tmp_path / "diary").mkdir()
    (tmp_path / "diary" / "monday.txt").write_text("precious")
    before = contents(tmp_path)
    refusals = {
        ("source", "there"): "is already there\n  replace it: huginn quantize",
        ("source", "source", "--force"): "is SRC itself",
        ("source", "diary", "--force"): "is a folder of something else",
        ("source", "diary/monday.txt", "--force"): "is a file",
    }
    for (src, out, *force), message in refusals.items():
        assert main(["quantize", str(tmp_path / src), str(tmp_path / out), *force]) == 3
        assert message in capsys.readouterr().err
    assert contents(tmp_path) == before
    assert main(["quantize", str(tmp_path / "source"), str(tmp_path / "there"), "--force"]) == 0
    assert load_checkpoint(tmp_path / "there").digest != source.digest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "out"], "nowhere: no such folder"),
        (["{}", "out", "--text", "missing.txt"], "missing.txt: No such file"),
        (["{}", "out", "--text", "raven.txt", "--validation", "0"], "--validation is 0.0"),
        (["{}", "out", "--text", "raven.txt", "--window", "0"], "--window is 0"),
        (["{}", "out", "--text", "one.txt", "--validation", "1"], "1 tokens to score"),
        (["{}", "raven.txt/out"], "raven.txt"),
    ],
)
def test_what_cannot_be_quantized_is_said_in_a_line_and_leaves_nothing(
    arguments: list[str], message: str, text_file: Path, checkpoints_folder: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(text_file.parent)
    Path("one.txt").write_text("a")
    assert main(["quantize", *(argument.format(checkpoints_folder / "tiny-char") for argument in arguments)]) == 3
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not Path("out").exists()
