"""`huginn compile`: programs for this processor, and for others."""

import json
import platform
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from functions.llm import cli
from functions.llm.inference.cpu_features import cpu_features
from functions.llm.inference.executables import Manifest

REPOSITORY = Path(__file__).parents[3]

# What a program can use of a Haswell of 2013, the oldest processor with AVX2.
HASWELL = {"avx", "avx2", "bmi", "bmi2", "cx16", "f16c", "fma", "lzcnt", "movbe", "popcnt", "sahf"} | {
    "sse3", "sse4.1", "sse4.2", "ssse3",
}  # fmt: skip

# Serves from the cache in its first argument, and says what it took and what it wrote.
SERVE = """
    import json, sys
    from pathlib import Path
    from functions.llm.checkpoints.checkpoint import load_checkpoint
    from functions.llm.inference.batch import generate
    from functions.llm.inference.executables import Executable
    from functions.llm.inference.generation import Generation, GenerationRequest
    from functions.llm.inference.sampling import SamplingOptions
    from functions.llm.inference.served_model import ServedModel
    served = ServedModel.of(load_checkpoint(Path(sys.argv[1])), Path(sys.argv[2]))
    asked = GenerationRequest("the raven said", 24, SamplingOptions(temperature=0.0), seed=1)
    text = "".join(getattr(event, "text", "") for batch in generate(Generation(served, asked)) for event in batch)
    functions = served.programs._functions.values()
    sets = {f._set.path.name for f in functions if isinstance(f, Executable)}
    compiled = sum(not isinstance(f, Executable) or f._set.broken for f in functions)
    print(json.dumps([text, sorted(sets), compiled]))
"""

x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="programs are compiled ahead for x86-64 only")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def report(cache, checkpoints_folder):
    """What the command says of two sets that it made."""
    command = ["compile", checkpoints_folder / "tiny-char", "--json", "--isa", "native", "avx2"]
    run = subprocess.run(
        [sys.executable, "-m", "functions.llm.cli", *command],
        cwd=REPOSITORY,
        env={"CACHE_PATH": str(cache), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    return json.loads(run.stdout)


def serve(checkpoint, cache, *emulator):
    """Text, sets, and how many programs were compiled after all, in a process of its own."""
    run = subprocess.run(
        [*emulator, sys.executable, "-c", textwrap.dedent(SERVE), checkpoint, cache / "executables"],
        cwd=REPOSITORY,
        env={"PATH": "/usr/bin:/bin", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@x86_64
def test_each_set_says_what_it_needs(report, cache):
    """That for AVX2 needs nothing that came later; that for this machine needs nothing that is not here."""
    manifests = {entry["instruction_set"]: Manifest.read(Path(entry["path"])) for entry in report["sets"]}
    assert set(manifests) == {"native", "avx2"}
    assert manifests["avx2"].requires <= HASWELL
    assert manifests["native"].requires <= cpu_features()
    assert all(Path(entry["path"]).is_relative_to(cache / "executables") for entry in report["sets"])
    assert all(entry["programs"] == len(manifests[entry["instruction_set"]].programs) for entry in report["sets"])


@x86_64
def test_a_server_finds_the_best_set(report, cache, checkpoints_folder):
    """Where all can run, the one for this very machine."""
    _, sets, compiled = serve(checkpoints_folder / "tiny-char", cache)
    assert (sets, compiled) == (["native"], 0)


@x86_64
def test_a_lesser_processor_takes_the_lesser_set_and_writes_the_same(report, cache, checkpoints_folder):
    """On a Haswell the set for this machine, if that is a newer one, would end in an illegal instruction."""
    if (qemu := shutil.which("qemu-x86_64")) is None:
        pytest.skip("needs qemu-x86_64: apt-get install qemu-user")
    text, _, _ = serve(checkpoints_folder / "tiny-char", cache)
    emulated, sets, compiled = serve(checkpoints_folder / "tiny-char", cache, qemu, "-cpu", "Haswell")
    native = Manifest.read(Path(report["sets"][0]["path"]))
    assert sets == (["avx2"] if native.requires - HASWELL else ["native"])
    assert (emulated, compiled) == (text, 0)


def test_a_checkpoint_that_cannot_be_used_is_3(tmp_path, monkeypatch, capsys):
    """Before anything is compiled."""
    monkeypatch.setenv("CACHE_PATH", str(tmp_path))
    assert cli.main(["compile", str(tmp_path / "none")]) == 3
    assert "none: no such folder" in capsys.readouterr().err


def test_wrong_use_is_2(checkpoints_folder, monkeypatch, capsys):
    """A set that nobody knows, and a cache that has no place."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["compile", "--isa", "mmx"])
    assert ended.value.code == 2
    for name in ("CACHE_PATH", "HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cli.main(["compile", str(checkpoints_folder / "tiny-char")]) == 2
    assert "CACHE_PATH=DIR huginn compile" in capsys.readouterr().err


@x86_64
def test_what_this_machine_lacks_is_said(checkpoints_folder, tmp_path, monkeypatch, capsys):
    """A compiler never uses more than there is, so a set of that name would not be one."""
    monkeypatch.setenv("CACHE_PATH", str(tmp_path))
    monkeypatch.setattr("functions.llm.inference.cpu_features.cpu_features", lambda: frozenset({"avx2", "fma"}))
    assert cli.main(["compile", str(checkpoints_folder / "tiny-char"), "--isa", "avx512"]) == 2
    assert "avx512 needs avx512f, avx512vl, which this processor lacks" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_sets_of_the_command_are_those_of_the_compiler():
    """The command's help must not wait for jax to learn them."""
    from functions.llm.commands.compile import CHOICES
    from functions.llm.inference.compile_ahead import INSTRUCTION_SETS

    assert tuple(INSTRUCTION_SETS) == CHOICES
