"""Programs that were compiled ahead: one set per model and instruction set, chosen by what the processor has.

A set is a folder with a manifest and a file per program. The files are pickles around machine code, so they are
trusted like the code of this package, and are only ever read from the cache of the user who runs it: never from a
checkpoint's folder, which may come from anywhere.
"""

import hashlib
import json
import logging
import pickle
import platform
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

import jax
import jaxlib.version

from functions.llm.inference.cpu_features import cpu_features
from functions.llm.inference.programs import program_functions
from functions.llm.inference.trusted_files import UntrustedFileError, refuse_what_others_may_write, trusted_content
from functions.llm.models import RecurrentLM

MANIFEST = "manifest.json"
FORMAT = 1

# Whatever decides what the compiled functions compute; the rest of the package may change without a new compilation.
SOURCES = (
    *("array_types.py", "inference/programs.py", "inference/sampling.py", "models/*.py", "ops/*.py"),
    *("native/**/*.py", "native/**/*.cc", "native/**/*.cpp", "native/**/*.h"),
)

logger = logging.getLogger(__name__)


class ExecutableError(Exception):
    """A set, or a program of it, cannot be used; the message says why."""


@dataclass(frozen=True)
class Manifest:
    """What a set says of itself.

    Args:
        instruction_set: the name under which it was asked for, "avx2", "avx512" or "native".
        requires: features that the processor must have, under LLVM's names.
        made_with: versions and sources that must be the same where it is used, see `made_with`.
        programs: SHA-256 of each program's file, hexadecimal, by the program's name.
    """

    instruction_set: str
    requires: frozenset[str]
    made_with: Mapping[str, str]
    programs: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the manifest of the set in ``folder``; ExecutableError if there is none to trust."""
        _refuse_folder_of_others(folder)
        file = folder / MANIFEST
        try:
            fields = json.loads(_content(file))
            if fields["format"] != FORMAT:
                raise ExecutableError(f"{file}: format is {fields['format']!r}, this version reads {FORMAT}")
            manifest = cls(
                str(fields["instruction_set"]),
                frozenset(fields["requires"]),
                dict(fields["made_with"]),
                dict(fields["programs"]),
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ExecutableError(f"{file}: not the manifest of compiled programs ({error!r})") from error
        for name in manifest.programs:
            # A program's name is a file's name: it must not lead out of the folder.
            if not name.replace("-", "").replace("_", "").isalnum():
                raise ExecutableError(f"{file}: {name!r:.60} is not the name of a program")
        return manifest

    def to_json(self) -> str:
        """Return what `read` reads."""
        fields = {
            "format": FORMAT,
            "instruction_set": self.instruction_set,
            "requires": sorted(self.requires),
            "made_with": self.made_with,
            "programs": self.programs,
        }
        return json.dumps(fields, indent=2) + "\n"

    def objection(self, features: frozenset[str]) -> str | None:
        """Return why the set must not be used here, on a processor with ``features``, or None if it may be."""
        for name, here in made_with().items():
            if self.made_with.get(name) != here:
                return f"was made with {name} {self.made_with.get(name)!s:.16}, here it is {here:.16}"
        if missing := self.requires - features:
            return f"needs {', '.join(sorted(missing))}, which this processor does not have"
        return None


@dataclass(eq=False)
class ChosenSet:
    """A set that may be used here, all of it read.

    Its programs are used together or not at all: those of another instruction set round differently, and a text's
    bits must not depend on which program happened to make them.

    Args:
        path: its folder, whose files may be others by now.
        manifest: what it says of itself.
        contents: of each program's file, as the manifest wants it; gone once the program is loaded.
        broken: whether a program could not be loaded, so that none is used any more.
    """

    path: Path
    manifest: Manifest
    contents: dict[str, bytes] = field(repr=False)
    broken: bool = False

    @classmethod
    def read(cls, path: Path, manifest: Manifest, names: Iterable[str]) -> Self:
        """Return the set in ``path`` with the programs ``names``; ExecutableError if it lacks one of them."""
        contents = {}
        for name in names:
            if name not in manifest.programs:
                raise ExecutableError(f"{path}: there is no program {name} in it")
            file = path / f"{name}.bin"
            contents[name] = _content(file)
            if (found := hashlib.sha256(contents[name]).hexdigest()) != manifest.programs[name]:
                raise ExecutableError(f"{file}: SHA-256 is {found}, the manifest says {manifest.programs[name]}")
        return cls(path, manifest, contents)


class Executable:
    """A program that was compiled ahead, loaded when it is first called; compiled anew if its set is broken."""

    def __init__(self, chosen: ChosenSet, name: str, function: Callable[..., Any]) -> None:
        """Take the program ``name`` of the set, and the jitted ``function`` once the set is broken."""
        self._set = chosen
        self._name = name
        self._function = function
        self._lock = threading.Lock()
        self._loaded: Callable[..., Any] | None = None

    def __call__(self, *args: Any) -> Any:
        """Call the program."""
        return self.load()(*args)

    def load(self) -> Callable[..., Any]:
        """Return the program, loading it if that has not been done."""
        if self._loaded is None and not self._set.broken:
            with self._lock:
                if self._loaded is None:
                    self._try_to_load()
        return self._function if self._loaded is None or self._set.broken else self._loaded

    def _try_to_load(self) -> None:
        try:
            self._loaded = _load(self._set.contents[self._name])
            del self._set.contents[self._name]
        except Exception:
            # Whatever is wrong with it: the same programs can be had by waiting a few seconds for the compiler.
            self._set.broken = True
            logger.warning(
                "%s of %s is of no use: all programs are compiled again", self._name, self._set.path, exc_info=True
            )


def find_executables(
    model: RecurrentLM, functions: Mapping[str, Callable[..., Any]], folder: Path | None
) -> dict[str, Executable]:
    """Return the programs compiled ahead for ``model``, the best set that this processor can run: all, or none.

    Args:
        model: the model that will be served.
        functions: the jitted function of every program, for what turns out not to be usable.
        folder: where sets are kept; None for nowhere.
    """
    chosen, objections = choose_set(model, folder)
    for objection in objections:
        logger.warning("Programs that were compiled ahead are left alone: %s", objection)
    if chosen is None:
        logger.info("No programs compiled ahead fit: they are compiled now")
        return {}
    logger.info("Programs compiled ahead for %s: %s", chosen.manifest.instruction_set, chosen.path)
    return {name: Executable(chosen, name, functions[name]) for name in chosen.contents}


def choose_set(model: RecurrentLM, folder: Path | None) -> tuple[ChosenSet | None, list[str]]:
    """Return the best set for ``model`` that this processor can run, if any, and why the others must not be used.

    That a lesser processor cannot run a set for a greater one is no objection where another set is chosen.
    """
    usable: list[tuple[Path, Manifest]] = []
    foreign, broken = [], []
    sets = folder and folder_of_sets(folder, model)
    # What begins with a dot is still being written.
    paths = sorted(sets.glob("[!.]*")) if sets else []
    if paths and (backend := jax.default_backend()) != "cpu":
        return None, [f"{sets}: they are for a CPU, and models run on {backend} here"]
    for path in paths:
        try:
            manifest = Manifest.read(path)
        except ExecutableError as error:
            broken.append(str(error))
            continue
        if objection := manifest.objection(cpu_features()):
            foreign.append(f"{path} {objection}")
        else:
            usable.append((path, manifest))
    # Whoever asks for more of the processor makes more of it.
    for path, manifest in sorted(usable, key=lambda found: -len(found[1].requires)):
        try:
            return ChosenSet.read(path, manifest, program_functions(model)), broken
        except ExecutableError as error:
            broken.append(str(error))
    return None, broken + foreign


def folder_of_sets(folder: Path, model: RecurrentLM) -> Path:
    """Return where the sets of models like ``model`` are, of the same family, sizes and types, whatever its weights."""
    leaves, tree = jax.tree_util.tree_flatten(model)
    shapes = [f"{leaf.dtype}{tuple(leaf.shape)}" for leaf in leaves]
    # The tree's own text has no addresses in it: names of classes and parameters, and the configuration.
    return folder / hashlib.sha256(f"{tree} {shapes}".encode()).hexdigest()[:32]


@cache
def made_with() -> dict[str, str]:
    """Return what must be the same where programs are compiled and where they are used."""
    root = Path(__file__).parents[1]
    sources = hashlib.sha256()
    for file in sorted(file for pattern in SOURCES for file in root.glob(pattern)):
        sources.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return {
        "jax": jax.__version__,
        "jaxlib": jaxlib.version.__version__,
        "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "machine": f"{sys.platform} {platform.machine()}",
        "source": sources.hexdigest(),
    }


def _load(content: bytes) -> Callable[..., Any]:
    from jax.experimental.serialize_executable import deserialize_and_load

    executable, in_tree, out_tree = pickle.loads(content)  # noqa: S301 - as trusted as this code, see above
    loaded: Callable[..., Any] = deserialize_and_load(executable, in_tree, out_tree)
    return loaded


def _content(file: Path) -> bytes:
    try:
        return trusted_content(file)
    except UntrustedFileError as error:
        raise ExecutableError(str(error)) from error
    except OSError as error:
        raise ExecutableError(f"{file}: {error.strerror}") from error


def _refuse_folder_of_others(folder: Path) -> None:
    try:
        refuse_what_others_may_write(folder, folder.stat())
    except UntrustedFileError as error:
        raise ExecutableError(str(error)) from error
    except OSError as error:
        raise ExecutableError(f"{folder}: {error.strerror}") from error
