"""Environments of clients that others wrote: their versions conflict with each other, and with what runs the tests.

    python -m tests.clients.environments openai2 openai3 node

makes build/clients/NAME of requirements/clients/NAME.txt (node: of tests/clients/node), each package checked against
its hash; what is up to date already is left alone.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
HERE = Path(__file__).parent
BUILD = REPOSITORY / "build" / "clients"
REQUIREMENTS = REPOSITORY / "requirements" / "clients"
STAMP = ".huginn-stamp"
ATTEMPTS = 3


def python_of(name: str) -> Path:
    """The interpreter of an environment."""
    return BUILD / name / "bin" / "python"


def is_ready(name: str) -> bool:
    """Whether an environment is what its requirements say."""
    stamp = BUILD / name / STAMP
    return stamp.is_file() and stamp.read_text("utf-8") == _contents(name)


def make(name: str) -> None:
    """Make an environment, or bring it up to date.

    Raises:
        subprocess.CalledProcessError: a package could not be had; what uv or npm say of it is on stderr.
    """
    folder = BUILD / name
    if is_ready(name):
        return
    began = time.monotonic()
    # A half-made one has no stamp.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if name == "node":
        for file in _node_files():
            shutil.copy(file, folder)
        # Nothing of a package is run by npm.
        _run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(folder))
    else:
        _make_python(folder, REQUIREMENTS / f"{name}.txt")
    (folder / STAMP).write_text(_contents(name), "utf-8")
    print(f"huginn: build/clients/{name} is ready ({time.monotonic() - began:.0f} s)", file=sys.stderr)


def _make_python(folder: Path, requirements: Path) -> None:
    """Fill an environment with uv, or with pip, which takes fifteen times as long, where uv cannot have the packages.

    The two are told by different files and variables where packages come from.
    """
    venv.create(folder)
    python = str(folder / "bin" / "python")
    flags = ("--quiet", "--no-deps", "--require-hashes", "--requirement", str(requirements))
    try:
        _run(str(Path(sys.executable).with_name("uv")), "pip", "install", "--system-certs", "--python", python, *flags)
    except (OSError, subprocess.CalledProcessError):
        print("huginn: uv could not install them; once more with pip", file=sys.stderr)
        _run(sys.executable, "-m", "pip", "--python", python, "install", "--no-compile", *flags)


def _node_files() -> list[Path]:
    return [HERE / "node" / "package.json", HERE / "node" / "package-lock.json"]


def _contents(name: str) -> str:
    """What an environment is made of; the place counts because programs in it name the folder they stand in."""
    files = _node_files() if name == "node" else [REQUIREMENTS / f"{name}.txt"]
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return "\n".join([str(BUILD / name), sys.version, *digests]) + "\n"


def _run(*command: str) -> None:
    """Run a command, again if a package index does not answer at once."""
    # An environment that is active says where packages go.
    environ = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    for attempt in range(1, ATTEMPTS + 1):
        result = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, check=False)
        if result.returncode == 0:
            return
        if attempt < ATTEMPTS:
            time.sleep(5 * attempt)
    raise subprocess.CalledProcessError(result.returncode, command)


def main(names: list[str]) -> int:
    """Make the environments that are named."""
    known = sorted([path.stem for path in REQUIREMENTS.glob("*.txt")] + ["node"])
    for name in names:
        if name not in known:
            print(f"huginn: {name} is no environment of clients; there are {', '.join(known)}", file=sys.stderr)
            return 2
        if name == "node" and shutil.which("npm") is None:
            print("huginn: npm is not there, so that nothing is tried with Node (apt-get install npm)", file=sys.stderr)
            continue
        try:
            make(name)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"huginn: build/clients/{name} could not be made: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
