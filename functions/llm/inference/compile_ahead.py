"""Compile every program of a model for one instruction set: the other side of `executables`.

XLA reads its flags once in a process, so each instruction set is compiled in a process of its own:

    python -m functions.llm.inference.compile_ahead CHECKPOINT FOLDER INSTRUCTION_SET
"""

import hashlib
import pickle
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from functions.llm.inference.cpu_features import required_features
from functions.llm.inference.executables import MANIFEST, Manifest, folder_of_sets, made_with
from functions.llm.inference.programs import program_specs
from functions.llm.models import RecurrentLM


@dataclass(frozen=True)
class InstructionSet:
    """What programs may use at most.

    Args:
        limit: under XLA's name; "" is everything that the compiling machine has.
        needs: what the compiling machine must have for the name to be true.
    """

    limit: str
    needs: frozenset[str]


INSTRUCTION_SETS = {
    "native": InstructionSet("", frozenset()),
    "avx512": InstructionSet("AVX512", frozenset({"avx512f", "avx512vl"})),
    "avx2": InstructionSet("AVX2", frozenset({"avx2", "fma"})),
}


def compile_command(checkpoint: Path, folder: Path, instruction_set: str) -> list[str]:
    """Return the command that compiles one set; it needs the environment of `compile_environment`."""
    return [sys.executable, "-m", __name__, str(checkpoint), str(folder), instruction_set]


def compile_environment(instruction_set: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return ``environ`` with the limit for XLA."""
    limit = INSTRUCTION_SETS[instruction_set].limit
    flags = [environ.get("XLA_FLAGS", ""), f"--xla_cpu_max_isa={limit}" if limit else ""]
    return {**environ, "XLA_FLAGS": " ".join(filter(None, flags)), "JAX_PLATFORMS": "cpu"}


def compile_set(
    model: RecurrentLM, folder: Path, instruction_set: str, progress: Callable[[str], None] = lambda _name: None
) -> Path:
    """Compile the programs of ``model`` in this process, and return the new set's folder, complete or not there.

    Args:
        model: as it will be served; its weights do not matter.
        folder: where sets are kept.
        instruction_set: the set's name; XLA has been limited to it already, see `compile_environment`.
        progress: hears each program's name before it is compiled.
    """
    from jax.experimental.serialize_executable import serialize

    contents: dict[str, bytes] = {}
    requires: frozenset[str] = frozenset()
    for name, spec in program_specs(model).items():
        progress(name)
        executable, in_tree, out_tree = serialize(spec.function.lower(*spec.args).compile())
        requires |= required_features(executable)
        contents[name] = pickle.dumps((executable, in_tree, out_tree))
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    manifest = Manifest(instruction_set, requires, made_with(), digests)
    files = {f"{name}.bin": content for name, content in contents.items()} | {MANIFEST: manifest.to_json().encode()}
    return _written(folder_of_sets(folder, model) / instruction_set, files)


def _written(path: Path, files: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as temporary:
        staged = Path(temporary) / "new"
        staged.mkdir()
        for name, content in files.items():
            (staged / name).write_bytes(content)
            # Whatever the umask: who may write here may run code as whoever serves.
            (staged / name).chmod(0o644)
        staged.chmod(0o755)
        if path.exists():
            path.rename(Path(temporary) / "old")
        staged.rename(path)
    return path


def main(checkpoint: str, folder: str, instruction_set: str) -> None:
    """Compile one set; a line on standard output for each program, and the set's folder at the end."""
    from functions.llm.checkpoints.checkpoint import load_checkpoint
    from functions.llm.inference.served_model import ServedModel

    model = ServedModel.of(load_checkpoint(Path(checkpoint))).programs.model
    path = compile_set(model, Path(folder), instruction_set, lambda name: print(name, flush=True))
    print(path, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
