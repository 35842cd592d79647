"""The kernel's library: found, checked, loaded once, and made known to XLA."""

import ctypes
import importlib.metadata
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from functions.llm.native.build import LIBRARY, library_digest, source_digest
from functions.llm.native.cpus import available_cpus

FAMILIES = ("mingru", "lstm")
DECODE = "decode"
"""The handler that makes whole chunks of tokens, of all families."""

MAX_THREADS = 2
"""The caller and one worker."""


class KernelUnavailableError(Exception):
    """There is no kernel to be had here; the message says why, and what would change that."""


class KernelSettingError(ValueError):
    """HUGINN_ISA or HUGINN_THREADS has a value that means nothing here; the message names it."""


@dataclass(frozen=True)
class Source:
    """An array for the kernel: contiguous, and for an int8 matrix the scale of each row."""

    data: NDArray[Any]
    scale: NDArray[np.float32] | None = None


class _CSource(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("scale", ctypes.c_void_p))


@dataclass(frozen=True)
class Kernel:
    """The loaded library, whose handlers XLA knows by `target`."""

    path: Path
    digest: str
    library: ctypes.CDLL

    def target(self, handler: str) -> str:
        """Return the name under which XLA knows a handler, that of a family or DECODE.

        It has the digest in it: a program that was compiled for another layout of the weights does not find it.
        """
        return f"huginn.{handler}.{self.digest[:16]}"

    @cached_property
    def instruction_sets(self) -> tuple[str, ...]:
        """All sets that were compiled, the least first."""
        names: list[str] = []
        while (name := self.library.huginn_instruction_set_name(len(names))) is not None:
            names.append(name.decode())
        return tuple(names)

    @property
    def supported_sets(self) -> tuple[str, ...]:
        """Those of `instruction_sets` that this CPU can run."""
        return tuple(name for i, name in enumerate(self.instruction_sets) if self.library.huginn_supports(i))

    @property
    def instruction_set(self) -> str:
        """The set in use."""
        index: int = self.library.huginn_instruction_set()
        return self.instruction_sets[index]

    def use_instruction_set(self, name: str) -> None:
        """Use that set from the next call on."""
        if name not in self.supported_sets:
            known = "this CPU does not have it" if name in self.instruction_sets else "there is no such set"
            raise KernelSettingError(f"HUGINN_ISA is {name!r}: {known}; possible are {', '.join(self.supported_sets)}")
        self.library.huginn_use_instruction_set(self.instruction_sets.index(name))

    @property
    def threads(self) -> int:
        """How many threads a call may use."""
        count: int = self.library.huginn_threads()
        return count

    def use_threads(self, count: int) -> None:
        """Use that many from the next call on: 1 or 2."""
        if not 1 <= count <= MAX_THREADS:
            raise KernelSettingError(f"HUGINN_THREADS is {count}; it must be from 1 to {MAX_THREADS}")
        self.library.huginn_set_threads(count)

    def packed_bytes(self, sizes: Sequence[int]) -> int:
        """Return how large the packed weights of such a model are; 0 if the kernel cannot run it."""
        count: int = self.library.huginn_packed_bytes(_int64s(sizes))
        return count

    def pack(self, sizes: Sequence[int], sources: Sequence[Source], packed: NDArray[np.uint8]) -> None:
        """Fill ``packed``, of `packed_bytes`, with the arrays, which are in the order of the config's param_shapes."""
        array = (_CSource * len(sources))(
            *(
                _CSource(source.data.ctypes.data, None if source.scale is None else source.scale.ctypes.data)
                for source in sources
            )
        )
        self.library.huginn_pack(_int64s(sizes), array, packed.ctypes.data)


def _int64s(values: Sequence[int]) -> Any:
    return (ctypes.c_int64 * len(values))(*values)


_loaded: dict[Path, Kernel] = {}
_known_to_xla: set[str] = set()
_loading = threading.Lock()


def load_kernel(path: Path = LIBRARY, environ: Mapping[str, str] = os.environ) -> Kernel:
    """Return the kernel of the library ``path``, loaded on the first call, as HUGINN_ISA and HUGINN_THREADS want it.

    Raises:
        KernelUnavailableError: there is none, or it was not made of these sources for this machine.
        KernelSettingError: a setting is malformed, or asks for what is not here.
    """
    with _loading:
        if path not in _loaded:
            kernel = _load(path)
            _apply_settings(kernel, environ)
            for handler in (*FAMILIES, DECODE):
                _make_known(kernel, handler)
            _loaded[path] = kernel
        return _loaded[path]


def _load(path: Path) -> Kernel:
    remedy = "build it: python -m functions.llm.native.build"
    if not path.exists():
        raise KernelUnavailableError(f"{path.name} is not there; {remedy}")
    digest = library_digest(path)
    if digest is None:
        raise KernelUnavailableError(f"{path.name} is not a library of this project; {remedy} --force")
    try:
        expected = source_digest()
    except (OSError, importlib.metadata.PackageNotFoundError) as error:
        raise KernelUnavailableError(f"{path.name} cannot be compared with what it is made of ({error})") from error
    if digest != expected:
        raise KernelUnavailableError(
            f"{path.name} was made of other sources, or for another jaxlib or machine; {remedy}"
        )
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelUnavailableError(f"{path.name} cannot be loaded ({error}); {remedy} --force") from error
    library.huginn_instruction_set_name.restype = ctypes.c_char_p
    library.huginn_packed_bytes.restype = ctypes.c_uint64
    library.huginn_pack.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    library.huginn_pack.restype = None
    return Kernel(path, digest, library)


def _make_known(kernel: Kernel, name: str) -> None:
    target = kernel.target(name)
    # XLA takes a name once; a copy of the library is as good as the first.
    if target not in _known_to_xla:
        handler = jax.ffi.pycapsule(getattr(kernel.library, f"huginn_{name}"))  # type: ignore[no-untyped-call]
        jax.ffi.register_ffi_target(target, handler, platform="cpu")
        _known_to_xla.add(target)


def _apply_settings(kernel: Kernel, environ: Mapping[str, str]) -> None:
    if name := environ.get("HUGINN_ISA"):
        kernel.use_instruction_set(name)
    threads = environ.get("HUGINN_THREADS")
    if threads and not threads.isdecimal():
        raise KernelSettingError(f"HUGINN_THREADS is {threads!r}; it must be a number from 1 to {MAX_THREADS}")
    kernel.use_threads(int(threads) if threads else min(available_cpus(), MAX_THREADS))
