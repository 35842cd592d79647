"""Read torch.save's zip files without torch, and without running what they hold."""

import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from functions.llm.checkpoints.inert_pickle import Name, PickleError, read_pickle

# What a storage of each type holds. Bool and complex are left out: no language model's weights are.
STORAGE_DTYPES: Mapping[str, np.dtype[np.generic]] = {
    "torch.DoubleStorage": np.dtype(np.float64),
    "torch.FloatStorage": np.dtype(np.float32),
    "torch.HalfStorage": np.dtype(np.float16),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.LongStorage": np.dtype(np.int64),
    "torch.IntStorage": np.dtype(np.int32),
    "torch.ShortStorage": np.dtype(np.int16),
    "torch.CharStorage": np.dtype(np.int8),
    "torch.ByteStorage": np.dtype(np.uint8),
}

# The pickle has names, shapes and a vocabulary, not weights: a tokenizer of 10 MB leaves room in this.
MAX_PICKLE_BYTES = 16 << 20

# Tied weights name the same bytes twice; many more times than that is a small file that wants a large memory.
MAX_SHARING = 4

MAX_DIMENSIONS = 64  # numpy's

# The number with which files from before torch 1.6 begin, pickled.
LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")


class TorchFileError(ValueError):
    """A torch file cannot be read; the message names the file and what is wrong in it."""


def read_torch_file(path: Path) -> object:
    """What torch.save wrote: dict, list, tuple, str, int, float, bool, None, and read-only numpy arrays as tensors.

    Containers may contain themselves; check before you walk.

    Raises:
        TorchFileError: no torch zip file, a damaged one, or one that holds more than data.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _Tensors(_Archive(archive, path.stat().st_size)).read()
    except (TorchFileError, PickleError) as error:
        raise TorchFileError(f"{path}: {error}") from error
    except zipfile.BadZipFile as error:
        raise TorchFileError(f"{path}: {_other_format(path) or f'is damaged: {error}'}") from error
    except OSError as error:
        raise TorchFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (NotImplementedError, RuntimeError, EOFError, ValueError) as error:  # zipfile, on headers that lie
        raise TorchFileError(f"{path}: is damaged: {error}") from error


def _other_format(path: Path) -> str | None:
    """What the file is, if it is no zip file at all."""
    if zipfile.is_zipfile(path):
        return None
    with path.open("rb") as file:
        begins = file.read(len(LEGACY_MAGIC))
    if begins == LEGACY_MAGIC:
        return (
            "is in torch's old format, from before 1.6; convert it where torch is and the file is trusted: "
            "torch.save(torch.load(old, weights_only=True), new)"
        )
    return "is no torch checkpoint (a zip file with data.pkl in it)"


class _Archive:
    """The members of a torch file, no larger together than the file itself."""

    def __init__(self, archive: zipfile.ZipFile, file_size: int) -> None:
        members = archive.infolist()
        self._archive = archive
        self._members = {member.filename: member for member in members}
        if len(self._members) < len(members):
            raise TorchFileError("is damaged: two members have one name")
        for member in members:
            # torch stores members as they are; so nothing here can unpack to more than the file has.
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                raise TorchFileError(f"{member.filename!a} is compressed or encrypted, torch stores members plain")
        self.size = sum(member.file_size for member in members)
        if self.size > file_size:
            raise TorchFileError(f"is damaged: its members claim {self.size} bytes, the file has {file_size}")
        pickles = [name for name in self._members if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise TorchFileError(f"has {len(pickles)} members named */data.pkl, expected one: no torch checkpoint")
        self._folder = pickles[0].removesuffix("data.pkl")

    def size_of(self, name: str) -> int:
        """Bytes of the member; TorchFileError if there is none."""
        if self._folder + name not in self._members:
            raise TorchFileError(f"is damaged: it has no member {self._folder + name!a}")
        return self._members[self._folder + name].file_size

    def read(self, name: str) -> bytes:
        """The member, its checksum checked."""
        expected = self.size_of(name)
        content = self._archive.read(self._folder + name)
        if len(content) != expected:
            raise TorchFileError(f"is damaged: {name} has {len(content)} bytes, its header says {expected}")
        return content

    def __contains__(self, name: str) -> bool:
        return self._folder + name in self._members


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    elements: NDArray[np.generic]  # one dimension, this machine's byte order


class _Tensors:
    """The pickle's tensors as views of the archive's storages, each checked to lie inside its storage."""

    def __init__(self, archive: _Archive) -> None:
        self._archive = archive
        self._storages: dict[tuple[str, str], _Storage] = {}
        self._bytes_left = MAX_SHARING * archive.size
        order = archive.read("byteorder").decode("ascii", "replace") if "byteorder" in archive else "little"
        if order not in {"little", "big"}:
            raise TorchFileError(f"byteorder is {order[:20]!a}, expected 'little' or 'big'")
        self._swapped = order != sys.byteorder

    def read(self) -> object:
        if (size := self._archive.size_of("data.pkl")) > MAX_PICKLE_BYTES:
            raise TorchFileError(f"data.pkl has {size} bytes, at most {MAX_PICKLE_BYTES} are read")
        try:
            return read_pickle(
                self._archive.read("data.pkl"),
                {"collections.OrderedDict": _empty_dict, "torch._utils._rebuild_tensor_v2": self._tensor},
                frozenset(STORAGE_DTYPES),
                self._storage,
            )
        except PickleError as error:
            raise TorchFileError(f"data.pkl {error}") from error

    def _storage(self, persistent_id: object) -> _Storage:
        match persistent_id:
            # Digits only: a key is part of a member's name, and of nothing else.
            case ("storage", Name(kind), str(key), str(), int(count)) if (
                kind in STORAGE_DTYPES and key.isascii() and key.isdigit() and type(count) is int
            ):
                pass
            case _:
                raise PickleError("has a persistent id that is no storage of numbers")
        dtype, member = STORAGE_DTYPES[kind], f"data/{key}"
        if (found := self._archive.size_of(member)) != count * dtype.itemsize:
            raise PickleError(f"says {member} holds {count} {dtype.name} numbers, but it has {found} bytes")
        if (key, kind) not in self._storages:
            elements = np.frombuffer(self._archive.read(member), dtype)
            if self._swapped:
                elements = elements.view(f"u{dtype.itemsize}").byteswap().view(dtype)
            self._storages[key, kind] = _Storage(key, elements)
        return self._storages[key, kind]

    def _tensor(self, *arguments: object) -> NDArray[np.generic]:
        match arguments:
            case (_Storage() as storage, int(offset), tuple(shape), tuple(strides), bool(), {**hooks}) if not hooks:
                pass
            case _:
                raise PickleError("has a tensor that is not storage, offset, shape, strides, flag and no hooks")
        elements, sizes, steps = storage.elements, _numbers(shape), _numbers(strides)
        where = f"a tensor of storage {storage.key}"
        if len(sizes) != len(steps) or len(sizes) > MAX_DIMENSIONS:
            raise PickleError(f"gives {where} {len(sizes)} sizes and {len(steps)} strides")
        count, last = 1, offset
        for size, step in zip(sizes, steps, strict=True):
            count *= size
            last += (size - 1) * step
        if not 0 < count <= elements.size or offset < 0 or last >= elements.size:
            raise PickleError(f"puts {where} outside it: {count} elements from {offset} to {last} of {elements.size}")
        self._bytes_left -= count * elements.itemsize
        if self._bytes_left < 0:
            raise PickleError(f"has tensors of more than {MAX_SHARING} times the file's bytes")
        # The stride of a single element is never used, and may be any number in the file.
        byte_steps = [step * elements.itemsize if size > 1 else 0 for size, step in zip(sizes, steps, strict=True)]
        return as_strided(elements[offset:], sizes, byte_steps, writeable=False)


def _numbers(values: tuple[object, ...]) -> list[int]:
    numbers = [value for value in values if type(value) is int and value >= 0]
    if len(numbers) != len(values):
        raise PickleError("has a shape or stride that is no whole number from 0")
    return numbers


def _empty_dict(*arguments: object) -> dict[object, object]:
    if arguments:
        raise PickleError("calls collections.OrderedDict with arguments, torch.save fills it item by item")
    return {}
