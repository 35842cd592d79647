"""`python -m benchmarks` says what there is and what is missing, before anything runs."""

import json
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import benchmarks.__main__ as command
from benchmarks.report import Report

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def quick(monkeypatch) -> dict[str, int]:
    """Two benchmarks that take no time, one of which needs a text."""
    ran: dict[str, int] = {}

    def module(name: str) -> ModuleType:
        def run(args: SimpleNamespace) -> Report:
            ran[name] = args.rounds
            return Report(name, "tokens/s", {"a": [1.0]}, "a")

        found = ModuleType(name)
        found.run = run
        return found

    known = {"quick": command.Benchmark("nothing"), "reader": command.Benchmark("a text", files=("text",))}
    monkeypatch.setattr(command, "BENCHMARKS", known)
    for name in known:
        monkeypatch.setitem(sys.modules, f"benchmarks.{name}", module(name))
    return ran


def test_three_files_come_out(quick, tmp_path, capsys):
    """Text, JSON and a picture; the JSON has the command that made it."""
    assert command.main(["quick", "--rounds", "2", "--out", str(tmp_path)]) == 0
    assert quick == {"quick": 2}
    assert {file.name for file in tmp_path.iterdir()} == {"quick.md", "quick.json", "quick.svg"}
    assert json.loads((tmp_path / "quick.json").read_text())["command"].startswith("python -m benchmarks")
    assert (tmp_path / "quick.md").read_text() in capsys.readouterr().out


def test_all_means_all_that_lack_nothing(quick, tmp_path, capsys):
    """What is left out is named, with what it lacks."""
    assert command.main(["--out", str(tmp_path)]) == 0
    assert quick == {"quick": 7}
    assert "leaving out reader: it needs --text FILE" in capsys.readouterr().err


def test_what_is_asked_for_by_name_must_be_possible(quick, tmp_path, capsys):
    """Nothing has run when the missing option is named."""
    with pytest.raises(SystemExit) as refused:
        command.main(["quick", "reader", "--out", str(tmp_path)])
    assert refused.value.code == 2
    assert "reader: it needs --text FILE" in capsys.readouterr().err
    assert quick == {}


def test_a_missing_peer_comes_with_the_line_that_installs_it(monkeypatch):
    """Whoever runs it need not look for the version."""
    monkeypatch.setitem(command.PEERS, "nosuchpeer", "nosuchpeer==1.2.3")
    benchmark = command.Benchmark("nothing", peers=("nosuchpeer",))
    assert list(benchmark.lacks(SimpleNamespace())) == [
        "its peers are not installed: .venv/bin/python -m pip install nosuchpeer==1.2.3"
    ]


def test_a_kernel_that_is_not_compiled_comes_with_its_line_too(monkeypatch, tmp_path):
    """Where there is no compiler, the tables that compare the kernel are left out."""
    monkeypatch.setattr(command, "KERNEL", tmp_path / "kernel.so")
    benchmark = command.Benchmark("nothing", kernel=True)
    assert list(benchmark.lacks(SimpleNamespace())) == [
        "the kernel is not compiled: .venv/bin/python -m functions.llm.native.build"
    ]
    (tmp_path / "kernel.so").touch()
    assert list(benchmark.lacks(SimpleNamespace())) == []


def test_an_unknown_name_is_answered_with_those_there_are(capsys):
    """A typing mistake costs one look."""
    with pytest.raises(SystemExit):
        command.main(["decode_sped"])
    assert "no benchmark decode_sped; there are train_speed," in capsys.readouterr().err


def test_every_benchmark_is_there():
    """Each name is a module beside the command, and its peers are among those that pyproject.toml pins."""
    peers = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]["peers"]
    assert sorted(command.PEERS.values()) == sorted(peers)
    for name, benchmark in command.BENCHMARKS.items():
        assert "\ndef run(args: " in (REPOSITORY / "benchmarks" / f"{name}.py").read_text()
        assert set(benchmark.peers) <= command.PEERS.keys()
