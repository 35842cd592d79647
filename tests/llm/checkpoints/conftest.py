"""Torch files made by hand, good ones and such as torch would never write."""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

STORAGE_NAMES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
}

WriteTorchFile = Callable[..., Path]


def tensor_opcodes(
    shape: Any, strides: Any, count: Any, offset: Any = 0, key: Any = "0", storage: str = "FloatStorage"
) -> bytes:
    """A tensor as torch pickles it; each part can be made wrong."""
    persistent_id = ("storage", f"ctorch\n{storage}\n".encode(), key, "cpu", count)
    hooks = b"ccollections\nOrderedDict\n" + pickle.EMPTY_TUPLE + pickle.REDUCE
    arguments = (pickled(persistent_id) + pickle.BINPERSID, offset, shape, strides, False, hooks)
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + pickled(arguments) + pickle.REDUCE


def pickled(value: Any) -> bytes:
    """The value in torch.save's opcodes, without a beginning and an end.

    Bytes are opcodes themselves, a SimpleNamespace is a tensor of these parts.
    """
    match value:
        case bytes():
            return value
        case SimpleNamespace():
            return tensor_opcodes(**vars(value))
        case dict():
            items = b"".join(pickled(key) + pickled(item) for key, item in value.items())
            return pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS
        case list() | tuple():
            begin, end = (pickle.EMPTY_LIST, pickle.APPENDS) if isinstance(value, list) else (b"", pickle.TUPLE)
            return begin + pickle.MARK + b"".join(map(pickled, value)) + end
        case str():
            text = value.encode("utf-8", "surrogatepass")
            return pickle.BINUNICODE + struct.pack("<I", len(text)) + text
        case bool() | None:
            return {True: pickle.NEWTRUE, False: pickle.NEWFALSE, None: pickle.NONE}[value]
        case int() if -(1 << 31) <= value < 1 << 31:
            return pickle.BININT + struct.pack("<i", value)
        case int():
            number = pickle.encode_long(value)
            return pickle.LONG1 + bytes([len(number)]) + number
        case float():
            return pickle.BINFLOAT + struct.pack(">d", value)
    raise TypeError(type(value))


def with_arrays(value: Any, storages: dict[str, bytes]) -> Any:
    """The value with arrays as contiguous tensors of storages of their own."""
    match value:
        case np.ndarray():
            key = str(len(storages))
            storages[key] = np.ascontiguousarray(value).tobytes()
            strides = tuple(int(np.prod(value.shape[axis + 1 :])) for axis in range(value.ndim))
            return SimpleNamespace(
                shape=value.shape, strides=strides, count=value.size, key=key, storage=STORAGE_NAMES[value.dtype.name]
            )
        case dict():
            return {key: with_arrays(item, storages) for key, item in value.items()}
    return value


@pytest.fixture
def write_torch_file(tmp_path: Path) -> WriteTorchFile:
    """Write a torch file of a value: its pickle, the storages of its arrays, and other members beside them."""

    def write(value: Any, members: Mapping[str, bytes] | None = None, name: str = "rnn.pt") -> Path:
        storages: dict[str, bytes] = {}
        pickle_bytes = pickle.PROTO + b"\x02" + pickled(with_arrays(value, storages)) + pickle.STOP
        content = {"data.pkl": pickle_bytes, "version": b"3\n"}
        content |= {f"data/{key}": storage for key, storage in storages.items()}
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for member, data in (content | dict(members or {})).items():
                archive.writestr(f"rnn/{member}", data)
        file = tmp_path / name
        file.write_bytes(buffer.getvalue())
        return file

    return write
