"""Torch files are read as data: what is data in them arrives, all else is refused and never run."""

import contextlib
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from functions.llm.checkpoints import torch_reader
from functions.llm.checkpoints.torch_reader import TorchFileError, read_torch_file

WriteTorchFile = Callable[..., Path]

NUMBERS = np.arange(24, dtype=np.float32)
FOUR = {"data/0": NUMBERS[:4].tobytes()}

ORDERED_DICT = b"ccollections\nOrderedDict\n"
NEW_DICT = ORDERED_DICT + b")R"


# What is data


def test_a_file_of_torch_has_the_numbers_of_its_safetensors_twin(shared_dir: Path):
    """All 105 tensors of a file that torch wrote, against the same model in a format of its own."""
    tensors = read_torch_file(shared_dir / "fixtures" / "rwkv7_tiny.pth")
    twin = load_file(shared_dir / "fixtures" / "rwkv7_tiny.safetensors")
    assert isinstance(tensors, dict)
    assert tensors.keys() == twin.keys()
    for name, expected in twin.items():
        np.testing.assert_array_equal(tensors[name], expected)


@pytest.mark.parametrize(
    "dtype",
    [np.float16, np.float32, np.float64, ml_dtypes.bfloat16, np.int8, np.int16, np.int32, np.int64, np.uint8],
)
@pytest.mark.parametrize("order", ["little", "big", None])
def test_every_type_and_byte_order_arrives(write_torch_file: WriteTorchFile, dtype: Any, order: str | None):
    """The numbers of a big-endian machine are the same numbers; a file that says nothing is little-endian."""
    numbers = np.array([[0, 1, 2], [3, 100, 127]], dtype)
    swapped = numbers.view(f"u{numbers.itemsize}").byteswap().view(dtype)
    members = {} if order is None else {"byteorder": order.encode()}
    file = write_torch_file({"x": swapped if order == "big" else numbers}, members)
    tensors: Any = read_torch_file(file)
    assert tensors["x"].dtype == numbers.dtype
    np.testing.assert_array_equal(tensors["x"], numbers)
    assert not tensors["x"].flags.writeable


def test_plain_values_arrive(write_torch_file: WriteTorchFile):
    value = {"a": [1, -5, 1 << 40, 2.5, True, False, None], "é": ("x", ("y",), ()), 3: {"deep": [[]]}}
    assert read_torch_file(write_torch_file(value)) == value


def test_python_itself_reads_the_same_pickle(write_torch_file: WriteTorchFile, tmp_path: Path):
    """What the standard pickler writes in torch's protocol is read as the standard unpickler does, memo and all."""
    shared = ["twice", 1.5]
    value = {"one": shared, "two": shared, "many": list(range(300)), "pair": (1, 2), "triple": ("a", "b", "c")}
    code = pickle.dumps(value, protocol=2)[2:-1]
    read: Any = read_torch_file(write_torch_file(code))
    assert read == value
    assert read["one"] is read["two"]


def test_views_show_their_part_of_the_storage(write_torch_file: WriteTorchFile):
    """A transposed tensor, a slice, a scalar, and tied weights: as numpy sees them, and none can be written to."""
    views = {
        "whole": SimpleNamespace(shape=(4, 6), strides=(6, 1), count=24),
        "transposed": SimpleNamespace(shape=(6, 4), strides=(1, 6), count=24),
        "slice": SimpleNamespace(shape=(2, 3), strides=(6, 2), count=24, offset=7),
        "scalar": SimpleNamespace(shape=(), strides=(), count=24, offset=5),
        "unused stride": SimpleNamespace(shape=(1, 6), strides=(10**30, 1), count=24, offset=18),
    }
    tensors: Any = read_torch_file(write_torch_file(views, {"data/0": NUMBERS.tobytes()}))
    whole = NUMBERS.reshape(4, 6)
    expected = {
        "whole": whole,
        "transposed": whole.T,
        "slice": whole[1:3, 1::2],
        "scalar": whole[0, 5],
        "unused stride": whole[3:],
    }
    for name, numbers in expected.items():
        np.testing.assert_array_equal(tensors[name], numbers)
        assert not tensors[name].flags.writeable


def test_the_versions_of_torch_modules_are_left_aside(write_torch_file: WriteTorchFile):
    """state_dict() carries them as an attribute, _metadata."""
    assert read_torch_file(write_torch_file(NEW_DICT + b"}X\x09\0\0\0_metadata" + NEW_DICT + b"sb")) == {}


# What would run


class RunsOnLoad:
    """Its pickle is a call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("function", [os.system, os.mkdir, exec, eval, getattr, print, shutil.rmtree])
def test_a_call_in_the_pickle_is_refused_and_does_not_run(
    write_torch_file: WriteTorchFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    function: Callable[..., object],
    protocol: int,
):
    """In every protocol of pickle, and wherever in the value it hides."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "precious").mkdir()
    command = {os.system: "mkdir ran", os.mkdir: "ran", shutil.rmtree: "precious"}.get(
        function, "__import__('os').mkdir('ran')"
    )
    code = pickle.dumps({"state_dict": [RunsOnLoad(function, command)]}, protocol)
    file = write_torch_file(code[: -len(pickle.STOP)] if protocol < 2 else code[2:-1])
    with pytest.raises(TorchFileError, match=r"refused"):
        read_torch_file(file)
    assert not (tmp_path / "ran").exists()
    assert (tmp_path / "precious").exists()
    assert capsys.readouterr().out == ""


def test_the_refused_name_is_told(write_torch_file: WriteTorchFile):
    code = pickle.dumps(RunsOnLoad(os.system, "true"), protocol=2)[2:-1]
    with pytest.raises(TorchFileError, match=r"rnn\.pt: data\.pkl asks for 'posix\.system', which no checkpoint needs"):
        read_torch_file(write_torch_file(code))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        # Names near the allowed ones.
        (b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n", "asks for 'torch._utils._rebuild_tensor_v2.__globals__'"),
        (b"ctorch\nFloatStorage.__class__\n", "asks for"),
        (b"ccollections\nOrderedDict.fromkeys\n", "asks for"),
        (b"ctorch.hub\nload\n", "asks for 'torch.hub.load'"),
        (b"c\n\n", "asks for '.'"),
        # Calls of what may be named, but not called, or not so.
        (b"ctorch\nFloatStorage\n)R", "calls torch.FloatStorage, which is nothing to call"),
        (b"})R", "calls a dict, which is nothing to call"),
        (ORDERED_DICT + b"]R", "with a list, expected a tuple"),
        (ORDERED_DICT + b"]\x85R", "calls collections.OrderedDict with arguments"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R", "has a tensor that is not storage, offset, shape"),
        # Attributes, by which an object could be made into another.
        (NEW_DICT + b"}X\x09\0\0\0__class__" + ORDERED_DICT + b"sb", "sets attributes of a dict"),
        (NEW_DICT + b"}X\x05\0\0\0items" + ORDERED_DICT + b"sb", "sets attributes of a dict"),
        (ORDERED_DICT + b"}X\x09\0\0\0_metadata}sb", "sets attributes of a Name"),
        # Opcodes that make objects, or that torch does not write.
        (b"(cposix\nsystem\no", "asks for 'posix.system'"),
        (b"(iposix\nsystem\n", "opcode INST"),
        (b"\x8c\x05posix\x8c\x06system\x93", "opcode SHORT_BINUNICODE"),
        (ORDERED_DICT + b")\x81", "opcode NEWOBJ "),
        (ORDERED_DICT + b")}\x92", "opcode NEWOBJ_EX"),
        (b"\x82\x01", "opcode EXT1"),
        (b"Pfile\n", "opcode PERSID"),
        (b"N2", "opcode DUP"),
        (b"N0N", "opcode POP"),
        # Things that are not what they are used as.
        (b"NQ", "persistent id that is no storage"),
        (b")Ns", "sets items of a tuple|empty stack"),
        (b"N(NNu", "sets items of a NoneType"),
        (b"}NNs", "dict key of type NoneType"),
        (b"})Ns", "dict key of type tuple"),
        (b"}(K\x01u", "a key without a value"),
        (b"}K\x01a", "appends to a dict"),
        (b"a", "empty stack"),
        (b"R", "empty stack"),
        (b"u", "a mark that is not there"),
        (b"h\x05", "recalls value 5"),
        (b"q\x00", "empty stack"),
        (b"", "does not end with one value"),
        (b"NN", "does not end with one value"),
        (b"(N", "does not end with one value"),
        (b"N(", "does not end with one value"),
        (b"J\x01", "is damaged"),
        (b"G\x01", "is damaged"),
        (b"X\xff\xff\xff\xffabc", "is damaged"),
        (b"X\x01\0\0\0\xff", "is damaged"),
        (b"\xff", "is damaged"),
    ],
)
def test_what_is_no_data_is_refused(write_torch_file: WriteTorchFile, code: bytes, message: str):
    with pytest.raises(TorchFileError, match=message):
        read_torch_file(write_torch_file(code))


def test_a_pickle_without_end_is_refused(write_torch_file: WriteTorchFile):
    file = write_torch_file({}, {"other": b""})
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("rnn/data.pkl", b"\x80\x02}")
    with pytest.raises(TorchFileError, match=r"data\.pkl is damaged"):
        read_torch_file(file)


def test_depth_is_no_danger(write_torch_file: WriteTorchFile):
    """Two hundred thousand lists in lists are built, used and freed without Python's stack."""
    depth = 200_000
    value = read_torch_file(write_torch_file(b"]" * depth + b"a" * (depth - 1)))
    for _ in range(depth - 1):
        assert isinstance(value, list)
        (value,) = value
    assert value == []


# Tensors that lie


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"shape": (5,), "strides": (1,)}, "5 elements from 0 to 4 of 4"),
        ({"shape": (2,), "strides": (4,)}, "from 0 to 4 of 4"),
        ({"shape": (2, 2), "strides": (3, 1)}, "from 0 to 4 of 4"),
        ({"shape": (4,), "strides": (1,), "offset": 1}, "from 1 to 4 of 4"),
        ({"shape": (1,), "strides": (1,), "offset": -1}, "from -1 to -1 of 4"),
        ({"shape": (2,), "strides": (-1,), "offset": 1}, "no whole number from 0"),
        ({"shape": (-2,), "strides": (1,)}, "no whole number from 0"),
        ({"shape": (True,), "strides": (1,)}, "no whole number from 0"),
        ({"shape": (2.0,), "strides": (1,)}, "no whole number from 0"),
        ({"shape": (1 << 62,), "strides": (0,)}, "elements from 0 to 0 of 4"),
        ({"shape": (1 << 40, 1 << 40), "strides": (0, 0)}, "elements from 0 to 0 of 4"),
        ({"shape": (8,), "strides": (0,)}, "8 elements from 0 to 0 of 4"),
        ({"shape": (0, 1 << 62), "strides": (1, 1)}, "0 elements"),
        ({"shape": (2,), "strides": (1, 1)}, "1 sizes and 2 strides"),
        ({"shape": (1,) * 65, "strides": (1,) * 65}, "65 sizes"),
        ({"shape": [4], "strides": (1,), "offset": "0"}, "has a tensor that is not storage"),
        ({"shape": (4,), "strides": (1,), "count": 5}, "says data/0 holds 5 float32 numbers, but it has 16 bytes"),
        ({"shape": (4,), "strides": (1,), "count": 1 << 61}, "but it has 16 bytes"),
        ({"shape": (4,), "strides": (1,), "count": -4}, "but it has 16 bytes"),
        ({"shape": (4,), "strides": (1,), "storage": "DoubleStorage"}, "4 float64 numbers, but it has 16 bytes"),
        ({"shape": (4,), "strides": (1,), "storage": "BoolStorage"}, "asks for 'torch.BoolStorage'"),
        ({"shape": (4,), "strides": (1,), "key": "1"}, "has no member 'rnn/data/1'"),
        ({"shape": (4,), "strides": (1,), "key": "../data/0"}, "persistent id that is no storage"),
        ({"shape": (4,), "strides": (1,), "key": "/etc/passwd"}, "persistent id that is no storage"),
        ({"shape": (4,), "strides": (1,), "key": "٠"}, "persistent id that is no storage"),
        ({"shape": (4,), "strides": (1,), "key": ""}, "persistent id that is no storage"),
        ({"shape": (4,), "strides": (1,), "key": 0}, "persistent id that is no storage"),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(write_torch_file: WriteTorchFile, parts: dict[str, Any], message: str):
    with pytest.raises(TorchFileError, match=message):
        read_torch_file(write_torch_file(SimpleNamespace(**{"count": 4} | parts), FOUR))


@given(
    shape=st.lists(st.integers(0, 5), max_size=3),
    strides=st.lists(st.integers(0, 7), min_size=3, max_size=3),
    offset=st.integers(0, 25),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_tensor_is_inside_its_storage_or_refused(
    write_torch_file: WriteTorchFile, shape: list[int], strides: list[int], offset: int
):
    """Each element is the one that the strides name, found by the slow way; nothing else is ever shown."""
    strides = strides[: len(shape)]
    tensor = SimpleNamespace(shape=tuple(shape), strides=tuple(strides), count=24, offset=offset)
    places = np.add(offset, sum((np.ix_(*map(np.arange, shape))[i] * strides[i] for i in range(len(shape))), start=0))
    file = write_torch_file(tensor, {"data/0": NUMBERS.tobytes()})
    if 0 < places.size <= 24 and places.max() < 24:
        np.testing.assert_array_equal(read_torch_file(file), NUMBERS[places])
    else:
        with pytest.raises(TorchFileError, match="outside it"):
            read_torch_file(file)


def test_a_small_file_cannot_ask_for_a_large_memory(write_torch_file: WriteTorchFile):
    """Tied weights share bytes; a hundred tensors of the same bytes are an attack on whoever copies them."""
    tensor = SimpleNamespace(shape=(4096,), strides=(1,), count=4096)
    storage = {"data/0": bytes(4 * 4096)}
    tied: Any = read_torch_file(write_torch_file([tensor] * 2, storage))
    assert len(tied) == 2
    with pytest.raises(TorchFileError, match="tensors of more than 4 times the file's bytes"):
        read_torch_file(write_torch_file([tensor] * 100, storage))


def test_a_pickle_beyond_the_limit_is_refused_unread(write_torch_file: WriteTorchFile, monkeypatch: pytest.MonkeyPatch):
    file = write_torch_file({"text": "x" * 1000})
    read_torch_file(file)
    monkeypatch.setattr(torch_reader, "MAX_PICKLE_BYTES", 1000)
    with pytest.raises(TorchFileError, match="at most 1000 are read"):
        read_torch_file(file)


# Files that are no torch files


def zip_of(path: Path, members: list[tuple[str, bytes]], **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


GOOD = ("rnn/data.pkl", b"\x80\x02}.")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], r"has 0 members named \*/data.pkl"),
        ([("data.pkl", GOOD[1])], r"has 0 members named \*/data.pkl"),
        ([("a/b/data.pkl", GOOD[1])], r"has 0 members named \*/data.pkl"),
        ([("word/document.xml", b"<x/>")], r"has 0 members named \*/data.pkl"),
        ([GOOD, ("other/data.pkl", GOOD[1])], r"has 2 members named \*/data.pkl"),
        ([GOOD, ("rnn/byteorder", b"middle")], "byteorder is 'middle', expected 'little' or 'big'"),
        ([GOOD, ("rnn/byteorder", b"\xff")], "byteorder is"),
    ],
)
def test_a_zip_file_of_something_else_is_refused(tmp_path: Path, members: list[tuple[str, bytes]], message: str):
    with pytest.raises(TorchFileError, match=message):
        read_torch_file(zip_of(tmp_path / "x.pt", members))


def test_a_name_is_only_a_key(tmp_path: Path):
    """Members with paths out of the folder are never written anywhere, and not even read."""
    file = zip_of(tmp_path / "x.pt", [GOOD, ("../../out", b"x"), ("/etc/out", b"x"), ("rnn/../data/0", b"x")])
    assert read_torch_file(file) == {}
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


def test_a_compressed_file_is_refused_before_it_unpacks(tmp_path: Path):
    """A gigabyte of zeros packs into a megabyte; torch never packs."""
    file = zip_of(tmp_path / "x.pt", [GOOD, ("rnn/data/0", bytes(1 << 20))], compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(TorchFileError, match=r"'rnn/data\.pkl' is compressed or encrypted"):
        read_torch_file(file)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path: Path):
    """Which of them counts would depend on the reader."""
    with pytest.raises(TorchFileError, match="two members have one name"):
        read_torch_file(zip_of(tmp_path / "x.pt", [GOOD, GOOD]))


def test_a_directory_that_claims_more_than_the_file_is_refused(tmp_path: Path):
    """As of a bomb whose members lie over one another."""
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr(*GOOD)
        for member in archive.filelist:
            member.file_size = member.compress_size = 1 << 30
    with pytest.raises(TorchFileError, match="members claim 1073741824 bytes, the file has"):
        read_torch_file(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no torch checkpoint"),
        (b"hello", "is no torch checkpoint"),
        (pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + b"rest", "is in torch's old format"),
        (b"PK\x03\x04 begins like one", "is no torch checkpoint"),
    ],
)
def test_another_format_is_named(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(TorchFileError, match=message) as caught:
        read_torch_file(tmp_path / "x.pt")
    assert str(caught.value).startswith(f"{tmp_path / 'x.pt'}: ")


def test_what_cannot_be_opened_is_named(tmp_path: Path):
    with pytest.raises(TorchFileError, match=r"absent\.pt: cannot be read: No such file"):
        read_torch_file(tmp_path / "absent.pt")
    with pytest.raises(TorchFileError, match="cannot be read: Is a directory"):
        read_torch_file(tmp_path)


def test_a_changed_number_is_noticed(write_torch_file: WriteTorchFile):
    """By the checksum of its member."""
    file = write_torch_file({"x": NUMBERS})
    content = bytearray(file.read_bytes())
    content[content.index(NUMBERS[5:].tobytes())] ^= 1
    file.write_bytes(content)
    with pytest.raises(TorchFileError, match="is damaged: Bad CRC-32"):
        read_torch_file(file)


def test_a_file_cut_short_is_refused(write_torch_file: WriteTorchFile):
    file = write_torch_file({"x": NUMBERS})
    content = file.read_bytes()
    for length in range(0, len(content), 7):
        file.write_bytes(content[:length])
        with pytest.raises(TorchFileError):
            read_torch_file(file)


@given(
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=3), st.integers(0, 3)), min_size=1, max_size=4)
)
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
def test_no_damage_does_more_than_an_error(write_torch_file: WriteTorchFile, edits: list[tuple[int, bytes, int]]):
    """A pickle changed anywhere in any way is read or refused; there is no third outcome."""
    value = {"state_dict": {"x": SimpleNamespace(shape=(2, 2), strides=(2, 1), count=4)}, "chars": ["a", "b"], "n": 1.5}
    with zipfile.ZipFile(write_torch_file(value)) as archive:
        code = archive.read("rnn/data.pkl")[2:-1]
    for place, inserted, removed in edits:
        at = place % len(code)
        code = code[:at] + inserted + code[at + removed :]
    with contextlib.suppress(TorchFileError):
        read_torch_file(write_torch_file(code or b"N", FOUR))


@given(place=st.integers(0, 10_000), byte=st.integers(0, 255))
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_of_the_zip_file_does_more_than_an_error(write_torch_file: WriteTorchFile, place: int, byte: int):
    file = write_torch_file({"x": NUMBERS, "chars": ["a"]})
    content = bytearray(file.read_bytes())
    content[place % len(content)] = byte
    file.write_bytes(content)
    with contextlib.suppress(TorchFileError):
        read_torch_file(file)
