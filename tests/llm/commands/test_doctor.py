"""`huginn doctor`: what it says, and when it says that nothing is served."""

import json

import pytest

from functions.llm import cli
from functions.llm.checkpoints.checkpoint import load_checkpoint
from functions.llm.commands import doctor
from functions.llm.commands.doctor import Finding
from functions.llm.inference.compile_ahead import compile_set
from functions.llm.inference.served_model import ServedModel
from functions.llm.native import library
from functions.llm.native.library import KernelSettingError, KernelUnavailableError


@pytest.fixture(autouse=True)
def _checkpoint(checkpoints_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("CKPT_PATH", str(checkpoints_folder / "tiny-char"))
    monkeypatch.setenv("CACHE_PATH", str(tmp_path / "cache"))


def report(capsys, exit_code=0):
    """The findings of --json, by section."""
    assert cli.main(["doctor", "--json"]) == exit_code
    found = json.loads(capsys.readouterr().out)
    assert found["serves"] is (exit_code == 0)
    return {finding["section"]: finding for finding in found["findings"]}


def without_kernel(error):
    def load_kernel():
        raise error

    return load_kernel


def test_every_section_is_a_line_for_people(capsys):
    """A mark, what it is about, and what was found."""
    assert cli.main(["doctor"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert [line.split()[1] for line in lines] == ["versions", "cpu", "kernel", "checkpoint", "programs"]
    assert {line.split()[0] for line in lines} <= {"ok", "slow"}


def test_a_machine_without_the_kernel_serves_and_is_told_what_it_loses(capsys, monkeypatch):
    """With a ratio, and the command that fixes it."""
    monkeypatch.setattr(library, "load_kernel", without_kernel(KernelUnavailableError("kernel.so is not there")))
    monkeypatch.setattr(
        "functions.llm.native.accelerated.load_kernel", without_kernel(KernelUnavailableError("kernel.so is not there"))
    )
    kernel = report(capsys)["kernel"]
    assert kernel["mark"] == "slow"
    assert kernel["summary"] == "not in use: kernel.so is not there"
    assert "times as fast" in kernel["lost"]
    assert "python -m functions.llm.native.build" in kernel["remedy"]

    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("CXX", raising=False)
    found = report(capsys)
    assert "apt-get install g++" in found["kernel"]["remedy"]
    assert found["checkpoint"]["details"]["kernel"] is False
    assert "XLA alone" in found["checkpoint"]["summary"]


def test_a_malformed_setting_is_a_failure(capsys, monkeypatch):
    """The server would not start either."""
    monkeypatch.setattr(library, "load_kernel", without_kernel(KernelSettingError("HUGINN_ISA is 'mmx'")))
    kernel = report(capsys, exit_code=1)["kernel"]
    assert (kernel["mark"], kernel["summary"]) == ("fail", "HUGINN_ISA is 'mmx'")


def test_a_checkpoint_that_does_not_load_is_a_failure(capsys, monkeypatch, tmp_path):
    """Nothing is served without one."""
    monkeypatch.setenv("CKPT_PATH", str(tmp_path / "gone"))
    checkpoint = report(capsys, exit_code=1)["checkpoint"]
    assert checkpoint["mark"] == "fail"
    assert "no such folder" in checkpoint["summary"]
    assert "huginn models" in checkpoint["remedy"]


def test_the_cpu_is_described_as_linux_does(tmp_path):
    """The features that matter, of the first CPU; where nobody says, the machine's kind."""
    description = tmp_path / "cpuinfo"
    description.write_text(
        "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 fma\n\nprocessor\t: 1\nmodel name\t: Other\n",
        "utf-8",
    )
    name, flags = doctor._cpu(description)
    assert (name, flags) == ("Some CPU", {"fpu", "avx2", "fma"})
    name, flags = doctor._cpu(tmp_path / "missing")
    assert name
    assert flags == set()


def test_one_section_that_fails_is_enough(capsys, monkeypatch):
    """Sections are a list: whoever adds one decides whether serving needs it."""
    broken = Finding("disk", "full", lost="everything", remedy="rm", serves=False)
    monkeypatch.setattr(doctor, "SECTIONS", (*doctor.SECTIONS, lambda: broken))
    assert report(capsys, exit_code=1)["disk"]["mark"] == "fail"
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "fail  disk        full",
        "                  lost: everything",
        "                  fix:  rm",
    ]


def test_programs_that_were_compiled_ahead_are_named_and_so_is_why_they_are_not_used(
    capsys, checkpoints_folder, tmp_path, monkeypatch
):
    """Where there are none the command that makes them is."""
    programs = report(capsys)["programs"]
    assert (programs["mark"], programs["remedy"]) == ("slow", "huginn compile")

    monkeypatch.setattr("functions.llm.inference.compile_ahead.program_specs", lambda model: {})
    monkeypatch.setattr("functions.llm.inference.executables.program_functions", lambda model: {})
    model = ServedModel.of(load_checkpoint(checkpoints_folder / "tiny-char")).programs.model
    path = compile_set(model, tmp_path / "cache" / "executables", "native")
    programs = report(capsys)["programs"]
    assert (programs["mark"], programs["details"]["chosen"]) == ("ok", "native")

    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"requires": ["avx1024f"]}))
    programs = report(capsys)["programs"]
    assert programs["mark"] == "slow"
    assert "needs avx1024f" in programs["summary"]
