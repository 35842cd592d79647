"""Safetensors files: written so that they can be mapped into memory, and mapped without a copy.

The format is 8 bytes with the header's length, little endian; the header, JSON, which spaces may follow; the tensors,
one after the other without a gap (https://github.com/huggingface/safetensors). Any reader of it reads what is written
here. What is read here is trusted with nothing: whoever wrote it, and wherever it was cut off.
"""

import hashlib
import json
import mmap
import stat
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

Tensor = NDArray[Any]

ALIGNMENT = 64
"""Bytes: XLA takes an array as it lies in memory if it begins at a multiple of this."""

DTYPES = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(jnp.bfloat16),
    "I8": np.dtype("i1"),
}
"""What weights are made of."""

LENGTH = struct.Struct("<Q")
MAX_HEADER_BYTES = 100_000_000
"""The limit of the other readers."""


class TensorFileError(ValueError):
    """A file is no safetensors file of ours; the message says what is there and what was expected."""


class TensorFile:
    """An open safetensors file.

    Its pages are read when they are used, and given up when memory is short. The file may be replaced or removed
    meanwhile; written to in place, it would change under its reader, and cut short, end its process.

    Args:
        content: the whole file.
        tensors: views of it, by name, read-only.
    """

    def __init__(self, content: "mmap.mmap | memoryview", tensors: Mapping[str, Tensor]) -> None:
        self.content = content
        self.tensors = tensors
        self._digest: str | None = None
        self._hashing = threading.Lock()

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    @property
    def hashed(self) -> bool:
        """Whether the digest is known already."""
        return self._digest is not None

    def digest(self) -> str:
        """Return the SHA-256 of the file, hexadecimal; read once, whoever asks."""
        with self._hashing:
            if self._digest is None:
                self._digest = hashlib.sha256(self.content).hexdigest()
            return self._digest


def open_tensor_file(file: Path) -> TensorFile:
    """Return the tensors in ``file``, mapped into memory: nothing but its header is read.

    Raises:
        TensorFileError: it is not whole, or not as it should be.
        OSError: it cannot be opened.
    """
    # What waits for a writer (a pipe) or never ends (a device) is no file of weights.
    if not stat.S_ISREG(file.stat().st_mode):
        raise TensorFileError("not a file")
    with file.open("rb") as opened:
        try:
            content: mmap.mmap | memoryview = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise TensorFileError("empty") from error
        except OSError:
            # Some file systems cannot map.
            content = memoryview(opened.read()).toreadonly()
    return TensorFile(content, parse_tensors(content))


def parse_tensors(content: "mmap.mmap | memoryview") -> dict[str, Tensor]:
    """Return the tensors in a safetensors file's ``content``, as views of it."""
    if len(content) < LENGTH.size:
        raise TensorFileError(f"{len(content)} bytes, too short for a header")
    (header_bytes,) = LENGTH.unpack(content[: LENGTH.size])
    begin = LENGTH.size + header_bytes
    if header_bytes > MAX_HEADER_BYTES or begin > len(content):
        raise TensorFileError(f"the header should have {header_bytes} bytes, the file has {len(content)}")
    end = 0
    tensors = {}
    for entry in sorted(_entries(bytes(content[LENGTH.size : begin])), key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != end:
            raise TensorFileError(f"{_short(entry.name)} begins at byte {entry.begin} of the data, expected {end}")
        end = entry.end
        if begin + end > len(content):
            raise TensorFileError(
                f"{_short(entry.name)} ends at byte {begin + end}, the file has {len(content)}: cut short?"
            )
        tensors[entry.name] = entry.view(content, begin)
    if begin + end != len(content):
        raise TensorFileError(f"the tensors end at byte {begin + end}, the file has {len(content)}")
    return tensors


def format_tensors(tensors: Mapping[str, Tensor]) -> list[bytes | memoryview]:
    """Return a safetensors file of ``tensors``, in pieces, without a copy of them.

    The data begins at a multiple of `ALIGNMENT`, and so does every tensor whose size, or that of all before it, is one:
    no gap is allowed, so those of round size come first, and of the others the largest. A file is the same whatever
    the order of ``tensors``.
    """
    arrays = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    names = {dtype: name for name, dtype in DTYPES.items()}
    header, end = {}, 0
    order = sorted(arrays, key=lambda name: (*_order(arrays[name]), name))
    for name in order:
        array = arrays[name]
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": names[array.dtype], "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(LENGTH.size + len(text)) % ALIGNMENT)
    return [LENGTH.pack(len(text)) + text, *(arrays[name].reshape(-1).view(np.uint8).data for name in order)]


def _order(array: Tensor) -> tuple[bool, int, int]:
    # By the numbers' size, so that even the unround ones begin at a multiple of their own.
    return array.nbytes % ALIGNMENT != 0, -array.itemsize, -array.nbytes


@dataclass(frozen=True)
class _Entry:
    """What the header says of a tensor."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int
    end: int

    def view(self, content: "mmap.mmap | memoryview", data: int) -> Tensor:
        count = prod(self.shape)
        try:
            if count == 0:
                return np.empty(self.shape, self.dtype)
            return np.frombuffer(content, self.dtype, count, data + self.begin).reshape(self.shape)
        except (ValueError, MemoryError) as error:
            # More axes than an array can have, or an empty one with an endless axis.
            raise TensorFileError(f"{_short(self.name)}: the shape {_short(self.shape)} is none of an array") from error


def _entries(header: bytes) -> list[_Entry]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            raise TensorFileError("the header has a name twice")
        return values

    try:
        values = json.loads(header.decode("utf-8"), object_pairs_hook=unique)
    except TensorFileError:
        raise
    except (ValueError, RecursionError) as error:
        raise TensorFileError(f"the header is not JSON ({error})") from error
    if not isinstance(values, dict) or not header.startswith(b"{"):
        raise TensorFileError("the header does not begin as an object does")
    return [_entry(name, value) for name, value in values.items() if name != "__metadata__"]


def _entry(name: str, value: Any) -> _Entry:
    if not isinstance(value, dict):
        raise TensorFileError(f"{_short(name)} is {_short(value)}, expected an object")
    dtype = value.get("dtype")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise TensorFileError(f"{_short(name)} has the dtype {_short(dtype)}; known are {', '.join(DTYPES)}")
    shape, offsets = (_sizes(name, key, value.get(key)) for key in ("shape", "data_offsets"))
    size = prod(shape) * DTYPES[dtype].itemsize
    if len(offsets) != 2 or offsets[1] - offsets[0] != size:
        raise TensorFileError(
            f"{_short(name)} has data_offsets {_short(offsets)}, but {dtype} of shape {_short(shape)} has {size} bytes"
        )
    return _Entry(name, DTYPES[dtype], shape, *offsets)


def _sizes(name: str, key: str, values: Any) -> tuple[int, ...]:
    # A file has at most 2^63 bytes; and no product of 64 such numbers takes long.
    if (
        not isinstance(values, list)
        or len(values) > 64
        or not all(type(value) is int and 0 <= value < 1 << 63 for value in values)
    ):
        raise TensorFileError(f"{_short(name)} has {key} {_short(values)}, expected a list of sizes")
    return tuple(values)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
