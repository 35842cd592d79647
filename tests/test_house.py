"""What is true of the repository as a whole: what it pins, what it names, what it weighs."""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[1]
REQUIREMENTS = REPOSITORY / "requirements"
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
# What is compiled: `peers` is for benchmarks alone, on machines whose torch is a matter of their own.
COMPILED = ["frontend", "backend", "llm", "telemetry", "aws", "train", "dev"]
# Other people's clients, whose environments conflict with each other.
CLIENTS = [f"clients/{path.stem}" for path in sorted((REQUIREMENTS / "clients").glob("*.in"))]
# Pinned too, and the only one that may be for accelerators; not in dev.txt, for it is gigabytes.
PINNED = [*COMPILED, "gpu"]

MAX_FILE_BYTES = 10_000_000


def pins(extra: str) -> dict[str, set[str]]:
    """Package name to the versions pinned in one file: more than one where Python versions need different ones."""
    found: dict[str, set[str]] = {}
    for name, pinned in re.findall(
        r"^([A-Za-z0-9._-]+)==(\S+)", (REQUIREMENTS / f"{extra}.txt").read_text("utf-8"), re.MULTILINE
    ):
        found.setdefault(canonicalize_name(name), set()).add(pinned)
    return found


def direct_dependencies(extra: str) -> list[Requirement]:
    """What an extra names itself, with what the extras that it includes name."""
    found = []
    for requirement in map(Requirement, EXTRAS[extra]):
        if requirement.name == "huginn":
            found += [each for included in requirement.extras for each in direct_dependencies(included)]
        else:
            found.append(requirement)
    return found


def tracked_files() -> list[Path]:
    """Every file that git has, or would have: not what it ignores."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    )
    paths = [REPOSITORY / name for name in listing.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


@pytest.mark.parametrize("extra", PINNED)
def test_every_direct_dependency_is_pinned(extra):
    """A dependency added to pyproject.toml without `make lock` is found here, and so is a range that left its pin."""
    pinned = pins(extra)
    for requirement in direct_dependencies(extra):
        versions = pinned.get(canonicalize_name(requirement.name))
        assert versions, f"{requirement.name} is not in {extra}.txt: make lock"
        assert all(each in requirement.specifier for each in versions), (
            f"{requirement} is pinned to {versions}: make lock"
        )


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_is_pinned_to_the_version_that_is_named(client):
    """What a .in file names is in the .txt that `make lock` makes of it."""
    named = re.findall(r"^([a-z].*)$", (REQUIREMENTS / f"{client}.in").read_text("utf-8"), re.MULTILINE)
    assert named
    for requirement in map(Requirement, named):
        assert {f"=={each}" for each in pins(client)[canonicalize_name(requirement.name)]} == {
            str(requirement.specifier)
        }


@pytest.mark.parametrize("extra", [*PINNED, *CLIENTS])
def test_every_pin_has_a_hash(extra):
    """`--require-hashes` refuses the whole file if one is missing."""
    text = (REQUIREMENTS / f"{extra}.txt").read_text("utf-8")
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert blocks
    assert [block.splitlines()[0] for block in blocks if "--hash=sha256:" not in block] == []


@pytest.mark.parametrize("extra", [*PINNED, *CLIENTS])
def test_requirements_name_no_address(extra):
    """Packages come from wherever the installing machine gets its packages."""
    text = (REQUIREMENTS / f"{extra}.txt").read_text("utf-8")
    assert not re.search(r"://|--(extra-)?index-url|--find-links|^-[if]\b", text, re.MULTILINE)


@pytest.mark.parametrize("extra", [*COMPILED, *CLIENTS])
def test_nothing_for_accelerators_is_installed(extra):
    """Neither torch nor CUDA packages, which are gigabytes, come with any extra."""
    assert [name for name in pins(extra) if re.match(r"nvidia|cuda|torch|triton|jax-cuda", name)] == []


@pytest.mark.parametrize("extra", [extra for extra in COMPILED if extra != "dev"])
def test_what_ships_is_what_is_tested(extra):
    """dev.txt, with which the tests run, has every version that the other files have."""
    dev = pins("dev")
    assert {name: versions for name, versions in pins(extra).items() if dev.get(name) != versions} == {}


def test_web_tiers_ship_no_model():
    """The zips of page and API stay small."""
    for extra in ("frontend", "backend"):
        assert not {"jax", "jaxlib", "numpy", "tokenizers", "safetensors"} & set(pins(extra))


def test_one_jax():
    """jax and jaxlib are one version, and it is the one that runs here."""
    for extra in ("llm", "train", "gpu", "dev"):
        assert pins(extra)["jax"] == pins(extra)["jaxlib"] == {version("jax")} == {version("jaxlib")}


def test_versions_agree():
    """The changelog's newest release, the project's version and the installed one are the same."""
    released = PYPROJECT["project"]["version"]
    changelog = (REPOSITORY / "CHANGELOG.md").read_text("utf-8")
    newest = re.search(r"^## \[?v?(\d+\.\d+\.\d+)", changelog, re.MULTILINE)
    assert newest is not None
    assert newest[1] == released == version("huginn")


def test_tools_read_the_lowest_python():
    """Types and syntax are checked for the oldest Python that the project promises."""
    lowest = PYPROJECT["project"]["requires-python"].removeprefix(">=")
    assert PYPROJECT["tool"]["mypy"]["python_version"] == lowest
    assert PYPROJECT["tool"]["ruff"]["target-version"] == "py" + lowest.replace(".", "")
    assert f"--python-version {lowest} " in (REPOSITORY / "Makefile").read_text("utf-8")


def test_no_file_names_this_machine():
    """No path of somebody's machine and no package mirror stands in what others clone."""
    # Written so that this file does not find itself.
    forbidden = re.compile(
        rb"/(?:work|root)/(?:main|shared|\.)|/opt/(?:pypi|wheels)|/home/[a-z]|/Users/[a-z]|(?:pypi|pythonhosted)\.org|registry\.npm"
    )
    this_file = Path(__file__)
    found = [
        f"{path.relative_to(REPOSITORY)}: {match[0].decode()}"
        for path in tracked_files()
        if path != this_file and (match := forbidden.search(path.read_bytes()))
    ]
    assert found == []


def test_no_file_is_heavy():
    """A clone stays quick: the bundled model is the largest thing in it."""
    assert [str(path) for path in tracked_files() if path.stat().st_size > MAX_FILE_BYTES] == []


def test_licence_is_named_and_there():
    """What pyproject.toml says of the licence is what the file says."""
    licence = (REPOSITORY / "LICENSE").read_text("utf-8")
    assert PYPROJECT["project"]["license"] == "MIT"
    assert licence.startswith("MIT License")


def test_decisions_have_their_five_lines():
    """Each decision has a date, its context, the choice, what was refused and what would change our mind."""
    text = (REPOSITORY / "DECISIONS.md").read_text("utf-8")
    for decision in text.split("\n## ")[1:]:
        title, *lines = (line for line in decision.splitlines() if line)
        heads = [re.match(r"- \*\*(.+?)\*\* \S", line) for line in lines]
        assert [head and head[1] for head in heads] == [
            "Date",
            "Context",
            "Choice",
            "Refused",
            "Would change our mind",
        ], title


def make(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run make in the repository with an environment that has a PATH and a HOME only."""
    return subprocess.run(
        ["make", *arguments],
        cwd=REPOSITORY,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_make_alone_lists_its_targets():
    """Every target that a person may call says in one line what it does."""
    result = make()
    assert result.returncode == 0
    documented = set(re.findall(r"^  make (\S+) +\S", result.stdout, re.MULTILINE))
    known = [
        "help",
        "setup",
        "up",
        "check",
        "test",
        "test-compose",
        "test-clients",
        "clients",
        "bench",
        "train",
        "package",
        "deploy",
        "lock",
        "clean",
    ]
    assert documented == set(known)


def test_arguments_of_another_make_are_not_ours():
    """`make test ARGS=...` exports ARGS, and a test below it may well run `make up`."""
    assert "--nonsense" not in make("--dry-run", "up", ARGS="--nonsense").stdout
    assert "--nonsense" in make("--dry-run", "up", "ARGS=--nonsense").stdout


@pytest.fixture
def bare_tree(tmp_path) -> Path:
    """What `make setup` reads, in a folder with a space in its name, without an environment."""
    tree = tmp_path / "a clone"
    (tree / "local").mkdir(parents=True)
    (tree / "requirements").mkdir()
    for name in ("Makefile", "pyproject.toml", "local/setup.sh", "requirements/dev.txt"):
        shutil.copy(REPOSITORY / name, tree / name)
    return tree


def setup(tree: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `make setup` in a tree; no package can be had, since pip and uv are told to be offline."""
    offline = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null", "UV_OFFLINE": "1", "UV_NO_CACHE": "1"}
    return subprocess.run(
        ["make", "setup"],
        cwd=tree,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tree), **offline, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_old_python_is_refused_in_words(bare_tree):
    """Not a traceback from the middle of an installation."""
    old = bare_tree / "python-old"
    old.write_text("#!/bin/sh\ncase $2 in *version_info*3,*) exit 1;; *) echo 3.9.2;; esac\n", "utf-8")
    old.chmod(0o755)
    result = setup(bare_tree, PYTHON="./python-old")
    assert result.returncode != 0
    assert "needs Python 3.11 or newer; ./python-old is 3.9.2" in result.stderr
    assert "make setup PYTHON=" in result.stderr
    assert not (bare_tree / ".venv").exists()


def test_an_environment_that_was_not_finished_is_not_taken_for_one(bare_tree):
    """Setup fails where the packages cannot be had, and the next run begins anew instead of calling it done."""
    first = setup(bare_tree, PYTHON=sys.executable)
    assert first.returncode != 0
    left = bare_tree / ".venv" / "left-over"
    left.touch()
    second = setup(bare_tree, PYTHON=sys.executable)
    assert second.returncode != 0
    assert not left.exists()


def test_a_finished_environment_is_left_alone(bare_tree):
    """With the stamp of the same Python, place and requirements nothing is done or said; with others it is updated."""
    environment = bare_tree / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (environment / "bin" / "huginn").touch(mode=0o755)
    checksums = subprocess.run(
        ["cksum", "requirements/dev.txt", "pyproject.toml", "local/setup.sh"],
        cwd=bare_tree,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    python_version = ".".join(map(str, sys.version_info[:3]))
    (environment / ".huginn-stamp").write_text(f"place {bare_tree}\npython {python_version}\n{checksums}", "utf-8")
    done = setup(bare_tree, PYTHON=sys.executable)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    with (bare_tree / "requirements" / "dev.txt").open("a", encoding="utf-8") as file:
        file.write("# one thing more\n")
    kept = environment / "kept"
    kept.touch()
    changed = setup(bare_tree, PYTHON=sys.executable)
    assert "installing" in changed.stderr
    # What has worked is not thrown away because an update of it could not be had.
    assert changed.returncode != 0
    assert kept.exists()


def test_a_linked_environment_is_left_alone(bare_tree, tmp_path):
    """One environment for several trees, such as git's worktrees, is not remade by one of them."""
    shared = tmp_path / "shared"
    (shared / "bin").mkdir(parents=True)
    (shared / "bin" / "huginn").touch(mode=0o755)
    (bare_tree / ".venv").symlink_to(shared)
    done = setup(bare_tree, PYTHON=sys.executable)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (bare_tree / ".venv").is_symlink()
