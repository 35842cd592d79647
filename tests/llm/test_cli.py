"""The command line that all commands share."""

import subprocess
import sys
from pathlib import Path

import pytest

from functions.llm import cli

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_helps_with_an_example(name, capsys):
    """--help says what it does and how it is called."""
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"huginn {name} " in out
    # Each example stands on a line of its own, as it was written.
    assert any(line.startswith(f"  huginn {name} ") or line == f"  huginn {name}" for line in out.splitlines())


def test_the_commands_are_listed_with_the_exit_codes(capsys):
    """huginn --help is the map."""
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    out = capsys.readouterr().out
    assert all(f"    {name} " in out for name in cli.COMMANDS)
    assert "exit codes: 0 ok" in out


@pytest.mark.parametrize("args", [[], ["nothing"], ["generate"], ["generate", "--seed", "a", "--chars", "many"]])
def test_wrong_use_is_2(args, capsys):
    """argparse says what is wrong."""
    with pytest.raises(SystemExit) as ended:
        cli.main(args)
    assert ended.value.code == 2
    assert "usage: huginn" in capsys.readouterr().err


def test_help_needs_neither_jax_nor_numpy():
    """Every command imports its own tools when it runs."""
    script = (
        "import argparse, sys\n"
        "from functions.llm.cli import add_commands\n"
        "add_commands(argparse.ArgumentParser().add_subparsers())\n"
        "sys.exit(' '.join({'jax', 'numpy', 'safetensors', 'tokenizers'} & sys.modules.keys()) or 0)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("missing", ["optax", "rich", "functions.llm.training"])
def test_training_without_its_packages_says_which_extra_has_them(missing, tmp_path):
    """As in a container that only serves."""
    (tmp_path / "text.txt").write_text("the raven " * 100)
    script = (
        "import sys\n"
        f"sys.modules[{missing!r}] = None\n"
        "from functions.llm.cli import main\n"
        f"sys.exit(main(['train', {str(tmp_path / 'text.txt')!r}, '--out', {str(tmp_path / 'out')!r}, '--steps', '1',"
        " '--batch', '1', '--length', '8', '--width', '4', '--hidden', '4', '--layers', '1']))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert run.returncode == 1
    assert f"train needs {missing}, which is not installed here" in run.stderr
    assert "pip install 'huginn[train]'" in run.stderr
    assert "Traceback" not in run.stderr
