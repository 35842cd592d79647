"""Compiles the kernel: python -m functions.llm.native.build.

Needs a C++ compiler, and of Python's packages the headers that come with jaxlib. Nothing here imports JAX, so that the
set-up can ask in a moment whether there is something to do.
"""

import argparse
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).with_name("csrc")
LIBRARY = Path(__file__).with_name("kernel.so")
FAILURE = Path(__file__).with_name("kernel.failed")
"""What the compiler said, after the digest of what it was given: the set-up does not try the same again."""

COMPILERS = ("c++", "g++", "clang++")
COMPILER_TIMEOUT_S = 300

# No contraction: the sources say where a product and a sum are one rounding. Inline functions stay in their object.
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-ffp-contract=off", "-w")

_AVX2 = ("-mavx2", "-mfma")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq")
INSTRUCTION_SETS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "x86_64": {
        "portable": (),
        "avx2": _AVX2,
        "avx512": _AVX512,
        "avx512_vnni": (*_AVX512, "-mavx512vnni"),
        "avx512_bf16": (*_AVX512, "-mavx512vnni", "-mavx512bf16"),
    },
}
"""Machine -> the instruction sets that the forward passes are compiled for, and the flags that allow them."""

DIGEST = re.compile(rb"huginn-kernel-digest:([0-9a-f]{64})")


class BuildError(Exception):
    """The kernel cannot be built; the message says why, in a sentence."""


def source_digest() -> str:
    """Return the SHA-256 of all that the library is made of: sources, this file, jaxlib's version, the machine."""
    parts = [platform.machine().encode(), importlib.metadata.version("jaxlib").encode()]
    parts += [Path(__file__).read_bytes()]
    for path in sorted(SOURCES.iterdir()):
        parts += [path.name.encode(), path.read_bytes()]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def library_digest(library: Path) -> str | None:
    """Return the digest of what ``library`` was made of, without loading it; None if it is no library of ours."""
    try:
        found = DIGEST.search(library.read_bytes())
    except OSError:
        return None
    return found[1].decode() if found else None


def find_compiler(environ: Mapping[str, str]) -> str:
    """Return $CXX, else the first C++ compiler on PATH."""
    candidates = [environ["CXX"]] if environ.get("CXX") else COMPILERS
    for name in candidates:
        if found := shutil.which(name, path=environ.get("PATH")):
            return found
    raise BuildError(f"there is no C++ compiler ({', '.join(candidates)}); on Debian: apt-get install g++")


def build(library: Path, environ: Mapping[str, str]) -> None:
    """Compile ``library``; it appears whole or not at all."""
    compiler = find_compiler(environ)
    try:
        with tempfile.TemporaryDirectory(prefix=".kernel-", dir=library.parent) as folder:
            _compile(compiler, Path(folder), library)
    except OSError as error:
        raise BuildError(f"{error.filename or library.parent}: {error.strerror}") from error


def _compile(compiler: str, folder: Path, library: Path) -> None:
    sets = INSTRUCTION_SETS.get(platform.machine(), {"portable": ()})
    jobs = [("forward", f"forward_{name}", (f"-DHUGINN_ISA={name}", *flags)) for name, flags in sets.items()]
    headers = ("-isystem", str(_jaxlib_headers()), f'-DHUGINN_DIGEST="{source_digest()}"')
    jobs += [("library", "library", headers), ("run", "run", ()), ("pack", "pack", ()), ("team", "team", ())]

    def compile_one(job: tuple[str, str, Sequence[str]]) -> str:
        source, output, flags = job
        made = str(folder / f"{output}.o")
        _run([compiler, *FLAGS, *flags, "-c", str(SOURCES / f"{source}.cpp"), "-o", made])
        return made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, jobs))
    made = folder / library.name
    _run([compiler, "-shared", "-pthread", *objects, "-o", str(made)])
    made.replace(library)


def _jaxlib_headers() -> Path:
    # Finding the package does not import it.
    spec = importlib.util.find_spec("jaxlib")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (headers := Path(folder) / "include").is_dir():
            return headers
    raise BuildError("jaxlib's headers are not installed")


def _run(command: Sequence[str]) -> None:
    try:
        subprocess.run(  # noqa: S603 - the compiler was found on PATH or named by CXX
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=COMPILER_TIMEOUT_S
        )
    except subprocess.CalledProcessError as error:
        raise BuildError(f"{command[0]} failed: {error.stderr.strip() or f'exit code {error.returncode}'}") from error
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{command[0]} took more than {COMPILER_TIMEOUT_S} s") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Build what is not there; say what was done, unless nothing was."""
    parser = argparse.ArgumentParser(prog="python -m functions.llm.native.build", description="Compile the kernel.")
    parser.add_argument("--force", action="store_true", help="build even if the library is up to date")
    parser.add_argument(
        "--setup", action="store_true", help="never fail, and do not try again what has failed with these sources"
    )
    args = parser.parse_args(argv)
    try:
        digest = source_digest()
        if not args.force and library_digest(LIBRARY) == digest:
            return 0
        if args.setup and _has_failed(digest):
            return 0
        build(LIBRARY, os.environ)
    except (BuildError, importlib.metadata.PackageNotFoundError) as error:
        _remember_failure(str(error))
        print(f"huginn: the kernel was not built, models run by XLA alone: {_first_line(str(error))}", file=sys.stderr)
        return 0 if args.setup else 1
    FAILURE.unlink(missing_ok=True)
    print("huginn: the kernel for small models is built", file=sys.stderr)
    return 0


def _has_failed(digest: str) -> bool:
    try:
        return FAILURE.read_text("utf-8").startswith(_situation(digest))
    except OSError:
        return False


def _situation(digest: str) -> str:
    # A compiler that was installed since is a reason to try again.
    try:
        return f"{digest} {find_compiler(os.environ)}\n"
    except BuildError:
        return f"{digest} without a compiler\n"


def _remember_failure(message: str) -> None:
    try:
        FAILURE.write_text(f"{_situation(source_digest())}{message}\n", "utf-8")
    except (OSError, importlib.metadata.PackageNotFoundError):
        # Then the next set-up tries again.
        return


def _first_line(message: str) -> str:
    lines = message.splitlines()
    return lines[0] if len(lines) == 1 else f"{lines[0]} (all of it: {FAILURE})"


if __name__ == "__main__":
    sys.exit(main())
