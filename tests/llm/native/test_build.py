"""Building the kernel: what is said, and when nothing is done."""

import os
import subprocess
import sys

import pytest

from functions.llm.native import build


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder in which there is no kernel yet."""
    monkeypatch.setattr(build, "LIBRARY", tmp_path / "kernel.so")
    monkeypatch.setattr(build, "FAILURE", tmp_path / "kernel.failed")
    return tmp_path


def test_without_a_compiler_set_up_goes_on(elsewhere, monkeypatch, capsys):
    """One sentence, once; by hand it is an error."""
    monkeypatch.setenv("PATH", str(elsewhere))
    monkeypatch.delenv("CXX", raising=False)
    assert build.main(["--setup"]) == 0
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "models run by XLA alone" in said
    assert "apt-get install g++" in said
    assert build.main(["--setup"]) == 0
    assert capsys.readouterr().err == ""
    assert build.main([]) == 1


def test_a_failed_compilation_is_not_repeated_by_set_up(elsewhere, monkeypatch, capsys):
    """It is kept with what the compiler said, and by hand it can be tried again."""
    compiler = elsewhere / "broken-c++"
    compiler.write_text('#!/bin/sh\necho run >>"$0.runs"\necho no such thing >&2\nexit 3\n', "utf-8")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    runs = elsewhere / "broken-c++.runs"
    assert build.main(["--setup"]) == 0
    assert "broken-c++ failed: no such thing" in capsys.readouterr().err
    assert "no such thing" in (elsewhere / "kernel.failed").read_text("utf-8")
    assert not (elsewhere / "kernel.so").exists()
    before = runs.read_text("utf-8")
    assert build.main(["--setup"]) == 0
    assert runs.read_text("utf-8") == before
    assert build.main([]) == 1
    assert runs.read_text("utf-8") != before


def test_a_folder_that_cannot_be_written_is_said_in_words(tmp_path):
    with pytest.raises(build.BuildError, match="No such file or directory"):
        build.build(tmp_path / "gone" / "kernel.so", {"PATH": os.environ["PATH"], "CXX": "true"})


def test_what_is_up_to_date_is_left_alone(built):
    """A second run does nothing, says nothing, and does not import JAX to find out."""
    before = build.LIBRARY.stat().st_mtime_ns
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "functions.llm.native.build"],
        capture_output=True,
        text=True,
        check=True,
        cwd=build.SOURCES.parents[3],
    )
    imported = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines()]
    assert build.LIBRARY.stat().st_mtime_ns == before
    assert [line for line in done.stderr.splitlines() if not line.startswith("import time:")] == []
    assert not {"jax", "jaxlib", "numpy"} & set(imported)


def test_the_digest_is_that_of_the_sources(built, tmp_path, monkeypatch):
    """It changes with every source, and it stands in the library."""
    digest = build.source_digest()
    assert build.library_digest(build.LIBRARY) == digest
    sources = tmp_path / "csrc"
    sources.mkdir()
    for path in build.SOURCES.iterdir():
        (sources / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(build, "SOURCES", sources)
    assert build.source_digest() == digest
    for path in sorted(sources.iterdir()):
        before = path.read_bytes()
        path.write_bytes(before + b"\n")
        assert build.source_digest() != digest
        path.write_bytes(before)


def test_an_object_exports_nothing_but_its_forward_passes(built, tmp_path):
    """An inline function that objects shared could be the one with the instructions that this CPU lacks."""
    compiler = build.find_compiler(os.environ)
    made = tmp_path / "forward.o"
    subprocess.run(
        [compiler, "-std=c++17", "-w", "-DHUGINN_ISA=portable", "-c", build.SOURCES / "forward.cpp", "-o", made],
        check=True,
    )
    symbols = subprocess.run(["nm", "--defined-only", "-C", made], capture_output=True, text=True, check=True).stdout
    shared = [line for line in symbols.splitlines() if line.split()[1] not in "tbdr"]
    assert [line.split(maxsplit=2)[2] for line in shared] == ["huginn::portable::kForward"]
