"""`huginn doctor`: what this machine makes of Huginn, what is lost on it, and the command that changes it."""

import argparse
import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from functions.llm.commands.default_checkpoint import BUNDLED, default_checkpoint

EXAMPLES = """\
examples:
  huginn doctor
  huginn doctor --json

exit codes: 0 models can be served, if not at full speed; 1 they cannot
"""

CPU_DESCRIPTION = Path("/proc/cpuinfo")

CPU_FEATURES = ("avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
"""Those that a program here looks for, under Linux's names."""

# benchmarks step_speed and batch_speed, the kernel and XLA in turns; see the README's figures.
WITHOUT_KERNEL = (
    "served on 2 cores with AVX-512, it makes one text of a 3x512 LSTM 2.9 times as fast in float32 and 13 times in "
    "int8, and sixteen texts of muninn-char together 4.4 times"
)

# benchmarks cold_start, muninn-char on 2 cores.
WITHOUT_PROGRAMS = "a server's first start compiles, which takes seconds; later ones find most of it in XLA's cache"


@dataclass(frozen=True)
class Finding:
    """What one section found.

    Args:
        section: what it is about.
        summary: in one line.
        details: for programs.
        lost: what does not work or is slower, in words; empty where all is well.
        remedy: the command that changes that.
        serves: whether models can be served all the same.
    """

    section: str
    summary: str
    details: dict[str, Any] = field(default_factory=dict)
    lost: str = ""
    remedy: str = ""
    serves: bool = True

    @property
    def mark(self) -> str:
        """One word for people."""
        return "ok" if not self.lost else "slow" if self.serves else "fail"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its arguments."""
    parser.description = "Say what this machine makes of Huginn: what is missing, what that costs, and what to do."
    parser.epilog = EXAMPLES
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Examine and report on standard output; exit codes: 0 models can be served, 1 they cannot."""
    findings = [section() for section in SECTIONS]
    serves = all(finding.serves for finding in findings)
    if args.json:
        described = [{"mark": finding.mark} | asdict(finding) for finding in findings]
        print(json.dumps({"serves": serves, "findings": described}, indent=2))
    else:
        for finding in findings:
            print("\n".join(_lines(finding)))
    return 0 if serves else 1


def _lines(finding: Finding) -> list[str]:
    lines = [f"{finding.mark:<6}{finding.section:<12}{finding.summary}"]
    lines += [f"{'':18}lost: {finding.lost}"] if finding.lost else []
    lines += [f"{'':18}fix:  {finding.remedy}"] if finding.remedy else []
    return lines


def examine_versions() -> Finding:
    """What runs here."""
    versions = {"python": platform.python_version(), "jax": version("jax"), "jaxlib": version("jaxlib")}
    summary = f"Python {versions['python']}, jax {versions['jax']}, jaxlib {versions['jaxlib']}"
    if versions["jax"] != versions["jaxlib"]:
        return Finding(
            "versions", summary, versions, lost="jax and jaxlib must be one version", remedy="make setup", serves=False
        )
    return Finding("versions", summary, versions)


def examine_cpu() -> Finding:
    """The CPU and what it has of what matters."""
    from functions.llm.native.cpus import available_cpus

    name, flags = _cpu(CPU_DESCRIPTION)
    features = [feature for feature in CPU_FEATURES if feature in flags]
    count = available_cpus()
    summary = f"{name}, {count} CPU{'s' if count > 1 else ''}: {' '.join(features) or 'nothing special'}"
    return Finding("cpu", summary, {"name": name, "cpus": count, "features": features})


def _cpu(description: Path) -> tuple[str, set[str]]:
    """Return the name and the features of the first CPU, as Linux describes it; elsewhere only the machine's kind."""
    try:
        lines = description.read_text("utf-8").splitlines()
    except OSError:
        lines = []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    flags = fields.get("flags", fields.get("Features", ""))
    return fields.get("model name", platform.machine()), set(flags.split())


def examine_kernel() -> Finding:
    """Whether small models run by the kernel, and on which instruction set."""
    from functions.llm.native.build import COMPILERS, BuildError, find_compiler
    from functions.llm.native.library import KernelSettingError, KernelUnavailableError, load_kernel

    try:
        kernel = load_kernel()
    except KernelSettingError as error:
        return Finding(
            "kernel", str(error), lost="the server does not start", remedy="unset that variable", serves=False
        )
    except KernelUnavailableError as error:
        remedy = "python -m functions.llm.native.build"
        try:
            find_compiler(os.environ)
        except BuildError:
            remedy = f"install a C++ compiler ({', '.join(COMPILERS)}; on Debian: apt-get install g++), then {remedy}"
        return Finding("kernel", f"not in use: {error}", {"in_use": None}, lost=WITHOUT_KERNEL, remedy=remedy)
    best = kernel.supported_sets[-1]
    details = {"in_use": kernel.instruction_set, "supported": kernel.supported_sets, "threads": kernel.threads}
    threads = "1 thread" if kernel.threads == 1 else f"{kernel.threads} threads"
    summary = f"{kernel.instruction_set}, {threads}"
    if kernel.instruction_set != best:
        return Finding("kernel", summary, details, lost=f"this CPU can do {best}", remedy="unset HUGINN_ISA")
    return Finding("kernel", summary, details)


def examine_checkpoint() -> Finding:
    """Whether the checkpoint that is served first can be loaded, and what runs it."""
    from functions.llm.checkpoints.checkpoint import CheckpointError, load_checkpoint
    from functions.llm.native.accelerated import accelerated
    from functions.llm.native.library import KernelSettingError

    try:
        path = default_checkpoint(os.environ)
        checkpoint = load_checkpoint(path)
    except CheckpointError as error:
        remedy = "CKPT_PATH=ckpts/... names another; huginn models lists what is there"
        where = {"path": os.environ.get("CKPT_PATH", str(BUNDLED))}
        return Finding("checkpoint", str(error), where, lost="nothing is served", remedy=remedy, serves=False)
    try:
        native = accelerated(checkpoint.model) is not None
    except KernelSettingError:
        native = False
    model = checkpoint.model.config
    details = {"path": str(path), "family": model.family, "digest": checkpoint.digest, "kernel": native}
    return Finding(
        "checkpoint", f"{checkpoint.name}, a {model.family}, by {'the kernel' if native else 'XLA alone'}", details
    )


def examine_programs() -> Finding:
    """Whether what the first checkpoint needs was compiled ahead, in a form that this processor can run."""
    from functions.llm.checkpoints.checkpoint import CheckpointError, load_checkpoint
    from functions.llm.inference.executables import choose_set
    from functions.llm.inference.served_model import ServedModel
    from functions.llm.native.library import KernelSettingError
    from functions.llm.settings import Settings, SettingsError

    try:
        folder = Settings.from_env(os.environ).executables_path
        model = ServedModel.of(load_checkpoint(default_checkpoint(os.environ))).programs.model
    except (CheckpointError, KernelSettingError, SettingsError):
        return Finding("programs", "unknown: what is served first cannot be loaded")
    chosen, objections = choose_set(model, folder)
    details = {"folder": str(folder), "chosen": chosen and chosen.path.name, "objections": objections}
    if chosen is not None:
        return Finding("programs", f"compiled ahead for {chosen.manifest.instruction_set}: {chosen.path}", details)
    summary = "; ".join(objections) if objections else "none were compiled ahead"
    remedy = "huginn compile" if folder is not None else "CACHE_PATH=DIR huginn compile, and serve with the same"
    return Finding("programs", summary, details, lost=WITHOUT_PROGRAMS, remedy=remedy)


SECTIONS: tuple[Callable[[], Finding], ...] = (
    examine_versions,
    examine_cpu,
    examine_kernel,
    examine_checkpoint,
    examine_programs,
)
"""In the order of the report. Each says in one `Finding` what it found, and raises nothing."""
