"""The zips for AWS Lambda: the same bytes each time, only what belongs in them, no larger than Lambda takes.

What the folder of wheels lacks is downloaded by pip, by its hash; nothing else here leaves the machine.
"""

import json
import os
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

import local.package
from local.cli import main
from local.errors import CommandError
from local.package import MAX_UNZIPPED_BYTES, TIERS, build_zip
from local.wheels import Target, fetch_wheels, read_pins, unpack_wheel

REPOSITORY = Path(__file__).parents[2]
# Of the Python that runs the tests, so that there is bytecode and the code can be run.
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
# As in a .pyc's header, https://docs.python.org/3/reference/import.html: its source is never looked at again.
UNCHECKED_HASH = 0b01


@pytest.fixture(scope="module", params=TIERS)
def package(request, tmp_path_factory):
    """The zip of each web tier."""
    return build_zip(request.param, tmp_path_factory.mktemp(request.param), PYTHON)


def entries(package) -> dict[str, zipfile.ZipInfo]:
    """Name to entry."""
    with zipfile.ZipFile(package.path) as archive:
        return {entry.filename: entry for entry in archive.infolist()}


def test_built_again_it_has_the_same_bytes(package, tmp_path, monkeypatch):
    """Another folder, another umask, another hash seed, nothing left of the first time."""
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    before = os.umask(0o077)
    try:
        again = build_zip(package.path.stem, tmp_path / "elsewhere", PYTHON)
    finally:
        os.umask(before)
    assert again == replace(package, path=again.path)
    assert again.path.read_bytes() == package.path.read_bytes()


def test_it_fits(package):
    """Far below the limit; the sizes are those of the entries."""
    assert package.fits
    assert package.unzipped_bytes == sum(entry.file_size for entry in entries(package).values())
    assert package.size_bytes == package.path.stat().st_size
    # A cold start fetches and unpacks it: what makes it this much larger is worth a thought.
    assert package.size_bytes < 10_000_000


def test_it_holds_its_function_and_no_other(package):
    """Sources, templates and strings, and what the extra pins; no server, no numbers, no tests of ours."""
    names = set(entries(package))
    tier = package.path.stem
    sources = {
        str(path.relative_to(REPOSITORY))
        for path in (REPOSITORY / "functions" / tier).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("Dockerfile")
    }
    assert sources <= names
    others = {name.split("/")[1] for name in names if name.startswith("functions/")} - {tier}
    assert others <= ({"runtime"} if tier == "backend" else set())
    tops = {name.split("/")[0] for name in names}
    assert {"fastapi", "mangum", "httpx", "pydantic_core", "certifi"} <= tops
    assert not tops & {"uvicorn", "uvloop", "numpy", "jax", "tests", "bin", "local"}
    assert not {name for name in names if name.endswith("/RECORD")}


def test_every_source_has_bytecode_that_needs_no_clock(package):
    """A cold start compiles nothing, whatever time Lambda gives the files."""
    with zipfile.ZipFile(package.path) as archive:
        names = archive.namelist()
        compiled = [name for name in names if name.endswith(".pyc")]
        assert {int.from_bytes(archive.read(name)[4:8], "little") for name in compiled} == {UNCHECKED_HASH}
    assert len(compiled) == sum(name.endswith(".py") for name in names)
    assert package.has_bytecode


def test_times_and_modes_say_nothing_of_the_machine(package):
    """One time for all; readable by whoever runs the function; executable is only what is run by its name."""
    found = entries(package)
    assert {entry.date_time for entry in found.values()} == {(1980, 1, 1, 0, 0, 0)}
    assert list(found) == sorted(found, key=lambda name: name.split("/"))
    executable = {name for name, entry in found.items() if (entry.external_attr >> 16) & 0o777 == 0o755}
    assert {(entry.external_attr >> 16) & 0o777 for name, entry in found.items() if name not in executable} == {0o644}
    assert executable <= {"functions/runtime/bootstrap"}


def test_a_marker_is_read_for_the_machine_that_it_is_for():
    """pip would answer it for its own Python."""
    text = (
        "old==1 ; python_full_version < '3.12' \\\n    --hash=sha256:" + "1" * 64 + "\n"
        "win==2 ; sys_platform == 'win32' \\\n    --hash=sha256:" + "2" * 64 + "\n"
        "Some.Name==3 \\\n    --hash=sha256:" + "3" * 64 + " \\\n    --hash=sha256:" + "4" * 64 + "\n    # via x\n"
        "uvicorn==4 \\\n    --hash=sha256:" + "5" * 64 + "\n"
    )
    assert [pin.name for pin in read_pins(text, Target("3.12"), {"uvicorn"})] == ["some-name"]
    assert [pin.name for pin in read_pins(text, Target("3.11"))] == ["old", "some-name", "uvicorn"]
    assert str(read_pins(text, Target("3.12"))[0]) == f"some-name==3 --hash=sha256:{'3' * 64} --hash=sha256:{'4' * 64}"


def make_wheel(folder: Path, name: str, files: dict[str, str]) -> Path:
    """A wheel with these files."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            archive.writestr(file, content)
    return path


def test_a_wheel_that_its_hash_does_not_know_is_not_packaged(tmp_path, monkeypatch):
    """What somebody has put into the folder is looked for anew, and where that fails, named."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    make_wheel(tmp_path, "thing", {"thing.py": "evil = True"})
    [pin] = read_pins(f"thing==1.0 \\\n    --hash=sha256:{'1' * 64}\n", Target())
    with pytest.raises(CommandError, match="pip cannot download thing") as refused:
        fetch_wheels([pin], Target(), tmp_path)
    assert refused.value.exit_code == 4
    assert [path.name for path in tmp_path.iterdir()] == ["thing-1.0-py3-none-any.whl"]


def test_of_a_wheel_the_site_packages_are_taken(tmp_path):
    """Also those under .data; no scripts, and nothing outside."""
    wheel = make_wheel(
        tmp_path,
        "thing",
        {
            "thing.py": "1", "thing-1.0.data/purelib/pure.py": "2", "thing-1.0.data/scripts/thing": "#!python",
            "thing-1.0.dist-info/METADATA": "Name: thing", "thing-1.0.dist-info/RECORD": "",
        },
    )  # fmt: skip
    assert {str(path): content for path, content in unpack_wheel(wheel)} == {
        "thing.py": b"1", "pure.py": b"2", "thing-1.0.dist-info/METADATA": b"Name: thing",
    }  # fmt: skip
    with pytest.raises(CommandError, match=r"holds \.\./thing\.py"):
        list(unpack_wheel(make_wheel(tmp_path, "thing", {"../thing.py": "1"})))


def test_the_report_says_the_size_against_the_limit(package, tmp_path, monkeypatch, capsys):
    """For a person and for a program; what Lambda would refuse is exit code 1."""
    tier = package.path.stem
    monkeypatch.setattr(local.package, "build_zip", lambda *_: package)
    assert main(["package", "--only", tier, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{tier}: {package.path}, ")
    assert "of Lambda's 250.0 MB" in said
    assert package.sha256 in said
    too_large = replace(package, unzipped_bytes=MAX_UNZIPPED_BYTES + 1)
    monkeypatch.setattr(local.package, "build_zip", lambda *_: too_large)
    assert main(["package", "--json", "--only", tier]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["limits"]["unzipped_bytes"] < report["packages"][0]["unzipped_bytes"]


def test_a_folder_that_cannot_be_written_is_refused_in_words(tmp_path, capsys, monkeypatch):
    """No traceback."""
    monkeypatch.setattr(local.package, "PYTHON", PYTHON)
    (tmp_path / "file").touch()
    assert main(["package", "--only", "frontend", "--out", str(tmp_path / "file" / "out")]) == 1
    assert "cannot be written" in capsys.readouterr().err
