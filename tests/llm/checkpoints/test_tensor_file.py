"""Safetensors files: any reader reads what is written, nothing is copied, and no file is trusted."""

import contextlib
import json
import os
import struct
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import example, given
from hypothesis import strategies as st

from functions.llm.checkpoints.tensor_file import (
    ALIGNMENT,
    DTYPES,
    TensorFileError,
    format_tensors,
    open_tensor_file,
    parse_tensors,
)

dtypes = st.sampled_from(list(DTYPES.values()))
shapes = st.lists(st.integers(0, 20), max_size=3).map(tuple)
names = st.text(st.characters(codec="utf-8"), max_size=8).filter(lambda name: name != "__metadata__")


@st.composite
def tensors(draw):
    """Arrays of all kinds, each number one that survives a comparison."""
    return {
        name: np.arange(np.prod(shape, dtype=int), dtype=np.int8).astype(dtype).reshape(shape)
        for name, (shape, dtype) in draw(st.dictionaries(names, st.tuples(shapes, dtypes), max_size=6)).items()
    }


def written(arrays):
    return b"".join(format_tensors(arrays))


def read_by_others(content):
    """Not safetensors.numpy.load: it knows no bfloat16."""
    return {
        name: np.frombuffer(tensor["data"], DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
        for name, tensor in safetensors.deserialize(content)
    }


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[name], array)


@given(tensors())
def test_other_readers_read_what_is_written_and_so_do_we(arrays):
    content = written(arrays)
    assert_equal(read_by_others(content), arrays)
    assert_equal(parse_tensors(memoryview(content)), arrays)


@given(tensors())
def test_what_other_writers_write_is_read(arrays):
    assert_equal(parse_tensors(memoryview(safetensors.numpy.save(arrays, {"format": "np"}))), arrays)


@given(tensors(), st.randoms())
def test_a_file_is_the_same_whatever_the_order(arrays, random):
    shuffled = list(arrays.items())
    random.shuffle(shuffled)
    assert written(dict(shuffled)) == written(arrays)


@given(tensors())
def test_round_tensors_begin_at_multiples_of_64_bytes_and_others_at_multiples_of_their_numbers(arrays):
    content = written(arrays)
    (header_bytes,) = struct.unpack("<Q", content[:8])
    assert (8 + header_bytes) % ALIGNMENT == 0
    for name, entry in json.loads(content[8 : 8 + header_bytes]).items():
        begin = entry["data_offsets"][0]
        assert begin % (ALIGNMENT if arrays[name].nbytes % ALIGNMENT == 0 else arrays[name].itemsize) == 0


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_nothing_is_copied_on_the_way_to_jax(tmp_path: Path, dtype) -> None:
    """The array lies where the file is mapped; written in another way, or unround, it is copied and equal."""
    arrays = {"a": np.ones((64, 32), dtype), "b": np.ones((32, 2), dtype), "odd": np.ones((3, 5), dtype)}
    file = tmp_path / "aligned"
    file.write_bytes(written(arrays))
    mapped = open_tensor_file(file).tensors
    assert_equal(mapped, arrays)
    for name in ("a", "b"):
        on_device = jax.device_put(mapped[name], may_alias=True)
        assert on_device.unsafe_buffer_pointer() == mapped[name].__array_interface__["data"][0]
    assert not mapped["a"].flags.writeable


def test_a_mapped_file_may_be_replaced_and_removed(tmp_path: Path) -> None:
    """What was opened stays what it was; so may the file object be gone while its arrays are used."""
    file = tmp_path / "weights"
    file.write_bytes(written({"a": np.full((1024, 1024), 3, np.float32)}))
    array = jax.device_put(open_tensor_file(file).tensors["a"], may_alias=True)
    (tmp_path / "other").write_bytes(written({"a": np.zeros((1024, 1024), np.float32)}))
    (tmp_path / "other").replace(file)
    file.unlink()
    assert float(jnp.sum(array)) == 3 * 1024 * 1024


def test_a_program_that_would_reuse_a_mapped_array_leaves_the_file_alone(tmp_path: Path) -> None:
    """A donated argument is written over; the pages of a file must not be, and cannot be."""
    file = tmp_path / "weights"
    content = written({"a": np.full((1024,), 3, np.float32)})
    file.write_bytes(content)
    mapped = open_tensor_file(file).tensors["a"]
    doubled = jax.jit(lambda a: 2 * a, donate_argnums=0)(jax.device_put(mapped, may_alias=True))
    assert float(doubled[0]) == 6
    assert float(mapped[0]) == 3
    assert file.read_bytes() == content


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(TensorFileError, match="not a file"):
            open_tensor_file(path)
    (tmp_path / "empty").touch()
    with pytest.raises(TensorFileError, match="empty"):
        open_tensor_file(tmp_path / "empty")
    with pytest.raises(FileNotFoundError):
        open_tensor_file(tmp_path / "none")


def test_where_a_file_cannot_be_mapped_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args, **kwargs):
        raise OSError(19, "No such device")

    file = tmp_path / "weights"
    arrays = {"a": np.arange(64, dtype=np.float32)}
    file.write_bytes(written(arrays))
    monkeypatch.setattr("functions.llm.checkpoints.tensor_file.mmap.mmap", refuse)
    opened = open_tensor_file(file)
    assert_equal(opened.tensors, arrays)
    assert not opened.tensors["a"].flags.writeable


def test_a_file_cut_anywhere_is_refused() -> None:
    """Before any page that is not there could be touched."""
    content = written({"a": np.ones((4, 4), np.float32), "b": np.ones(3, np.int8)})
    for length in range(len(content)):
        with pytest.raises(TensorFileError):
            parse_tensors(memoryview(content[:length]))
    with pytest.raises(TensorFileError, match="the tensors end at"):
        parse_tensors(memoryview(content + b"\0"))


def file_of(header, data=b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype="F32", shape=(2,), data_offsets=(0, 8)):
    return {"dtype": dtype, "shape": shape, "data_offsets": data_offsets}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "too short"),
        (struct.pack("<Q", 1 << 63) + b"{}", "the header should have"),
        (file_of(b"[]"), "does not begin as an object"),
        (file_of(b" {}"), "does not begin as an object"),
        (file_of(b"\xff"), "not JSON"),
        (file_of(b"[" * 100_000), "not JSON"),
        (file_of(b'{"a": 1, "a": 2}'), "a name twice"),
        (file_of({"a": 5}), "'a' is 5, expected an object"),
        (file_of({"a": entry(dtype="F64")}, bytes(8)), "known are F32"),
        (file_of({"a": entry(dtype=["F32"])}, bytes(8)), "has the dtype"),
        (file_of({"a": entry(shape=[-2])}, bytes(8)), "expected a list of sizes"),
        (file_of({"a": entry(shape=[2.0])}, bytes(8)), "expected a list of sizes"),
        (file_of({"a": entry(shape=[True, 2])}, bytes(8)), "expected a list of sizes"),
        (file_of({"a": entry(shape=[1 << 63, 0])}, bytes(8)), "expected a list of sizes"),
        (file_of({"a": entry(shape=[1 << 62] * 64)}, bytes(8)), "bytes"),
        (file_of({"a": entry(shape=[0, 1 << 62, 1 << 62], data_offsets=[0, 0])}), "is none of an array"),
        (file_of({"a": entry(shape=[3])}, bytes(12)), "has 12 bytes"),
        (file_of({"a": entry(data_offsets=[8, 0])}, bytes(8)), "data_offsets"),
        (file_of({"a": entry(data_offsets=[8])}, bytes(8)), "data_offsets"),
        (file_of({"a": entry(data_offsets=[4, 12])}, bytes(12)), "expected 0"),
        (file_of({"a": entry(), "b": entry()}, bytes(8)), "'b' begins"),
        (file_of({"a": entry(), "b": entry(data_offsets=[4, 12])}, bytes(12)), "expected 8"),
        (file_of({"a": entry()}, bytes(7)), "cut short"),
        (file_of({"a": entry()}, bytes(9)), "the tensors end at"),
        (file_of({}, bytes(1)), "the tensors end at"),
    ],
)
def test_a_header_that_lies_is_refused_with_words(content: bytes, message: str) -> None:
    with pytest.raises(TensorFileError, match=message):
        parse_tensors(memoryview(content))


VALID = written({"a": np.ones((2, 3), np.float32), "b": np.ones(4, np.int8), "__c": np.ones(1, np.float16)})


@given(st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), max_size=6))
def test_whatever_bytes_change_a_file_is_refused_or_read_as_others_read_it(changes) -> None:
    content = bytearray(VALID)
    for index, value in changes:
        content[index] = value
    try:
        found = parse_tensors(memoryview(bytes(content)))
    except TensorFileError:
        return
    expected = read_by_others(bytes(content))
    assert {name: (array.dtype, array.tobytes()) for name, array in found.items()} == {
        name: (array.dtype, array.tobytes()) for name, array in expected.items()
    }


wild = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=6,
)
sizes = st.lists(st.integers(-1, 9) | st.integers(), max_size=4)
half_wild = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*DTYPES, "F64", "", None]),
        "shape": sizes | wild,
        "data_offsets": st.tuples(st.integers(-1, 40), st.integers(-1, 40)) | sizes | wild,
    }
)


@given(st.dictionaries(st.text(max_size=3), half_wild | wild, max_size=4) | wild, st.binary(max_size=40))
@example({"a": entry(shape=[0] * 65, data_offsets=[0, 0])}, b"")
def test_no_header_does_anything_but_be_read_or_refused(header, data) -> None:
    try:
        found = parse_tensors(memoryview(file_of(header, data)))
    except TensorFileError:
        return
    assert sum(array.nbytes for array in found.values()) == len(data)


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_be_read_or_refused(content) -> None:
    with contextlib.suppress(TensorFileError):
        parse_tensors(memoryview(content))
