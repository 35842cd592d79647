"""`huginn package`: the web tiers as zips for AWS Lambda, the same bytes each time."""

import argparse
import hashlib
import json
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from local.bytecode import compile_tree, find_python
from local.console import Console
from local.errors import CommandError

REPOSITORY = Path(__file__).parents[1]
WHEELS = REPOSITORY / "build" / "wheels"

# What Lambda takes of a zip: unpacked, all layers included, and as part of a request instead of from S3.
MAX_UNZIPPED_BYTES = 250 << 20
MAX_DIRECT_BYTES = 50 << 20

# The Python of the functions in infra/tiers.yaml, and where Lambda unpacks them.
PYTHON = "3.12"
TASK_ROOT = PurePosixPath("/var/task")

# Of the extras, what serves on a machine of one's own: on Lambda the runtime is the server.
SERVERS = frozenset({"uvicorn", "uvloop", "httptools", "click"})

# The earliest that a zip can hold.
_EPOCH = (1980, 1, 1, 0, 0, 0)

Tier = Literal["frontend", "backend"]
TIERS: tuple[Tier, ...] = get_args(Tier)

# The page is buffered, and runs in AWS's own runtime.
_FUNCTIONS: dict[Tier, tuple[str, ...]] = {"frontend": ("frontend",), "backend": ("backend", "runtime")}

EXAMPLES = """\
examples:
  huginn package
  huginn package --only backend --out build/lambda --json
"""


@dataclass(frozen=True)
class Package:
    """A zip that was built."""

    path: Path
    size_bytes: int
    unzipped_bytes: int
    sha256: str
    has_bytecode: bool

    @property
    def fits(self) -> bool:
        """Whether Lambda takes it."""
        return self.unzipped_bytes <= MAX_UNZIPPED_BYTES


def build_zip(tier: Tier, out: Path, python: str = PYTHON, wheels: Path = WHEELS) -> Package:
    """Build ``out``/``tier``.zip: the function, what its extra pins, and bytecode; built twice, the same bytes.

    Args:
        tier: which one.
        out: a folder; made if it is not there.
        python: the version it is to run on. Bytecode is added if there is such a Python here.
        wheels: where what was downloaded is kept.

    Raises:
        CommandError: a wheel cannot be had, or this is no checkout.
    """
    # Not for --help, and not where only the functions are installed: it needs `packaging`.
    from local.wheels import Target, fetch_wheels, read_pins, unpack_wheel

    requirements = REPOSITORY / "requirements" / f"{tier}.txt"
    if not requirements.is_file():
        raise CommandError(
            f"{requirements} is not there: only a checkout of the repository can be packaged",
            "run this in one: git clone, make setup, make package",
            exit_code=2,
        )
    target = Target(python)
    pins = read_pins(requirements.read_text("utf-8"), target, without=SERVERS)
    compiler = find_python(python)
    with tempfile.TemporaryDirectory(prefix="huginn-package-") as stage:
        tree = Path(stage)
        for wheel in fetch_wheels(pins, target, wheels):
            for path, content in unpack_wheel(wheel):
                _write(tree / path, content)
        for function in _FUNCTIONS[tier]:
            for source in _files_of(function):
                _write(tree / source.relative_to(REPOSITORY), source.read_bytes(), executable=_is_executable(source))
        if compiler:
            compile_tree(tree, compiler, TASK_ROOT)
        out.mkdir(parents=True, exist_ok=True)
        return _zip(tree, out / f"{tier}.zip", has_bytecode=compiler is not None)


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = (
        "Build the zips of page and API for AWS Lambda: the function, what its extra pins, and bytecode. The same "
        "sources give the same bytes. The model ships as an image: docker build -f functions/llm/Dockerfile ."
    )
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--out", metavar="DIR", type=Path, default=Path("dist"), help="where they go (default: %(default)s)"
    )
    parser.add_argument("--only", choices=TIERS, help="build this one alone")
    parser.add_argument("--json", action="store_true", help="report as JSON")


def run(args: argparse.Namespace) -> int:
    """Build, and report each one's size against the limit; 1 if Lambda would refuse one."""
    console = Console()
    packages: dict[str, Package] = {}
    for tier in [args.only] if args.only else TIERS:
        console.progress(f"packaging {tier}")
        try:
            packages[tier] = build_zip(tier, args.out)
        except OSError as error:
            raise CommandError(
                f"{error.filename or args.out} cannot be written ({error.strerror})",
                "name another folder: huginn package --out DIR",
                exit_code=1,
            ) from error
        finally:
            console.progress("")
    if args.json:
        limits = {"unzipped_bytes": MAX_UNZIPPED_BYTES, "direct_upload_bytes": MAX_DIRECT_BYTES}
        reports = [{"tier": tier, **asdict(package), "path": str(package.path)} for tier, package in packages.items()]
        print(json.dumps({"python": PYTHON, "limits": limits, "packages": reports}, indent=2))
    else:
        for tier, package in packages.items():
            print(f"{tier}: {package.path}, {_mb(package.size_bytes)}; {_share(package)}\n  sha256 {package.sha256}")
    if not all(package.has_bytecode for package in packages.values()):
        console.log(f"no python{PYTHON} on PATH: without bytecode a cold start compiles what it imports")
    return 0 if all(package.fits for package in packages.values()) else 1


def _share(package: Package) -> str:
    verdict = "" if package.fits else ": TOO LARGE"
    share = package.unzipped_bytes / MAX_UNZIPPED_BYTES
    return f"unzipped {_mb(package.unzipped_bytes)}, {share:.0%} of Lambda's {_mb(MAX_UNZIPPED_BYTES)}{verdict}"


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.1f} MB"


def _files_of(function: str) -> Iterator[Path]:
    for path in sorted((REPOSITORY / "functions" / function).rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(REPOSITORY).parts)
        if path.is_file() and not hidden and "__pycache__" not in path.parts and not path.name.startswith("Dockerfile"):
            yield path


def _is_executable(path: Path) -> bool:
    # A shell script is one that somebody runs, wherever the checkout has lost its mode (Windows, some archives).
    return path.suffix == "" and path.read_bytes()[:2] == b"#!"


def _write(path: Path, content: bytes, *, executable: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o755 if executable else 0o644)


def _zip(tree: Path, out: Path, *, has_bytecode: bool) -> Package:
    """Write ``out`` whole or not at all: entries sorted, one time for all, modes ours."""
    unzipped = 0
    half = out.with_name(f".{out.name}.part")
    try:
        with zipfile.ZipFile(half, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for path in sorted(path for path in tree.rglob("*") if path.is_file()):
                entry = zipfile.ZipInfo(path.relative_to(tree).as_posix(), _EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.create_system = 3  # Unix, whose modes Lambda reads
                mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
                entry.external_attr = (0o100000 | mode) << 16
                content = path.read_bytes()
                unzipped += len(content)
                archive.writestr(entry, content)
        digest = hashlib.sha256(half.read_bytes()).hexdigest()
        half.replace(out)
    finally:
        half.unlink(missing_ok=True)
    return Package(out, out.stat().st_size, unzipped, digest, has_bytecode)
