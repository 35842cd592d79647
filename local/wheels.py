"""The wheels that a pinned list of requirements means on another machine: fetched once, checked each time, unpacked."""

import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from packaging.markers import Marker
from packaging.utils import canonicalize_name, parse_wheel_filename

from local.errors import CommandError

# glibc 2.34 is what Amazon Linux 2023 has; wheels for any older one run there too.
_MANYLINUX = ("manylinux_2_28", "manylinux_2_24", "manylinux_2_17", "manylinux2014", "manylinux_2_12", "manylinux2010",
              "manylinux_2_5", "manylinux1")  # fmt: skip

_PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s;]+)\s*(?:;([^\\]*))?")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Target:
    """The machine that wheels are for: CPython on Linux, x86-64."""

    python: str = "3.12"

    @property
    def markers(self) -> Mapping[str, str]:
        """What environment markers mean there; pip would ask the Python that it runs in."""
        return {
            "implementation_name": "cpython", "implementation_version": f"{self.python}.0", "os_name": "posix",
            "platform_machine": "x86_64", "platform_python_implementation": "CPython", "platform_release": "",
            "platform_system": "Linux", "platform_version": "", "python_full_version": f"{self.python}.0",
            "python_version": self.python, "sys_platform": "linux", "extra": "",
        }  # fmt: skip

    @property
    def pip_options(self) -> list[str]:
        """Tell pip which wheels run there."""
        abi = "cp" + self.python.replace(".", "")
        platforms = [f"--platform={name}_x86_64" for name in _MANYLINUX]
        return [*platforms, f"--python-version={self.python}", "--implementation=cp",
                f"--abi={abi}", "--abi=abi3", "--abi=none"]  # fmt: skip


@dataclass(frozen=True)
class Pin:
    """One version of one package, and what its files may hash to."""

    name: str
    version: str
    hashes: frozenset[str]

    def __str__(self) -> str:
        """Write it as pip reads it."""
        return " ".join([f"{self.name}=={self.version}", *(f"--hash=sha256:{each}" for each in sorted(self.hashes))])


def read_pins(requirements: str, target: Target, without: Collection[str] = ()) -> list[Pin]:
    """Give what a compiled requirements file pins for ``target``, sorted by name, less the packages in ``without``."""
    pins = []
    for block in re.split(r"^(?=[A-Za-z0-9])", requirements, flags=re.MULTILINE)[1:]:
        found = _PIN.match(block)
        if found is None:
            raise ValueError(f"{block.splitlines()[0]!r} is no pinned requirement")
        name, version, marker = canonicalize_name(found[1]), found[2], (found[3] or "").strip()
        if name not in without and (not marker or Marker(marker).evaluate(dict(target.markers))):
            pins.append(Pin(name, version, frozenset(_HASH.findall(block))))
    return sorted(pins, key=lambda pin: pin.name)


def fetch_wheels(pins: Sequence[Pin], target: Target, folder: Path) -> list[Path]:
    """Give a wheel for each pin, in their order; what ``folder`` does not have yet is downloaded into it.

    Raises:
        CommandError: a wheel cannot be had, or there is no pip.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [pin for pin in pins if _find_wheel(folder, pin, target) is None]
    if missing:
        _download(missing, target, folder)
    wheels = {pin.name: _find_wheel(folder, pin, target) for pin in pins}
    if lacking := [name for name, wheel in wheels.items() if wheel is None]:
        raise CommandError(
            f"pip has downloaded nothing that the hashes in requirements/ allow for {', '.join(lacking)}",
            "pin them anew with `make lock`, or see which index pip asks: pip config list",
            exit_code=4,
        )
    return [wheel for wheel in wheels.values() if wheel]


def unpack_wheel(wheel: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Give the files that installing ``wheel`` would put among the site packages: no scripts, headers or data."""
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            path = PurePosixPath(entry.filename)
            if entry.is_dir():
                continue
            if path.is_absolute() or ".." in path.parts:
                raise CommandError(f"{wheel.name} holds {entry.filename}", f"remove {wheel}, and ask why", exit_code=3)
            if path.parts[0].endswith(".data"):
                if path.parts[1] not in {"purelib", "platlib"}:
                    continue
                path = PurePosixPath(*path.parts[2:])
            # What was installed from where is nobody's question here, and differs with who asks.
            if path.parts[0].endswith(".dist-info") and path.name in {"RECORD", "INSTALLER", "REQUESTED"}:
                continue
            yield path, archive.read(entry)


def _find_wheel(folder: Path, pin: Pin, target: Target) -> Path | None:
    for path in sorted(folder.glob("*.whl")):
        name, version, _, tags = parse_wheel_filename(path.name)
        if (name, str(version)) != (pin.name, pin.version):
            continue
        of_target = "cp" + target.python.replace(".", "")
        if any(tag.abi in {"none", "abi3"} or tag.interpreter == of_target for tag in tags) and (
            hashlib.sha256(path.read_bytes()).hexdigest() in pin.hashes
        ):
            return path
    return None


def _download(pins: Iterable[Pin], target: Target, folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as half:
        wanted = Path(half) / "requirements.txt"
        wanted.write_text("".join(f"{pin}\n" for pin in pins), "utf-8")
        command = [
            *pip_command(), "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes",
            "--only-binary=:all:", *target.pip_options, f"--dest={half}", f"--requirement={wanted}",
        ]  # fmt: skip
        # Every word of it is ours or a path; pip asks the index that this machine's own configuration names.
        run = subprocess.run(  # noqa: S603
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
        )
        if run.returncode:
            names = ", ".join(pin.name for pin in pins)
            raise CommandError(
                f"pip cannot download {names}:\n{run.stderr.strip()}",
                "see that this machine reaches a package index: pip config list",
                exit_code=4,
            )
        for wheel in Path(half).glob("*.whl"):
            wheel.replace(folder / wheel.name)


def pip_command() -> list[str]:
    """Give what runs pip: this Python's own, or uv's where an environment made by uv has none."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if uv := shutil.which("uv"):
        return [uv, "tool", "run", "--quiet", "pip"]
    raise CommandError("there is no pip here", f"{sys.executable} -m ensurepip", exit_code=4)
