"""The local AWS of compose: which checkpoints are in its bucket, and what it costs to put them there."""

import hashlib
import math
import os
import tempfile
import threading
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import pytest
from moto.s3.models import s3_backends

from local.aws.serve import ACCOUNT, BUCKET, MB, Checkpoints, looking_again, memory_limit, one_at_a_time


@pytest.fixture
def s3():
    """moto's, and nobody else's."""
    backend = s3_backends[ACCOUNT]["aws"]
    backend.reset()
    yield backend
    backend.reset()


@pytest.fixture
def ckpts(tmp_path):
    """Makes checkpoints, of a config and as many bytes as are asked for."""

    def make(**sizes):
        for name, size in sizes.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "config.json").write_bytes(b"{}")
            (tmp_path / name / "model.safetensors").write_bytes(os.urandom(size))
        return tmp_path

    return make


def names(s3):
    return sorted(s3.get_bucket(BUCKET).keys)


def test_what_is_in_the_bucket_is_what_is_in_the_folder(s3, ckpts):
    """Byte by byte, with its size and its ETag; what is no checkpoint is not there."""
    folder = ckpts(mine=3 * MB + 7)
    (folder / "notes").mkdir()
    (folder / "notes" / "todo.txt").touch()
    Checkpoints(s3, folder, math.inf).bring_all()
    assert names(s3) == ["mine/config.json", "mine/model.safetensors"]
    content = (folder / "mine" / "model.safetensors").read_bytes()
    key = s3.get_object(BUCKET, "mine/model.safetensors")
    assert (key.value, key.size) == (content, len(content))
    assert key.etag == f'"{hashlib.md5(content).hexdigest()}"'


def test_a_checkpoint_is_never_in_memory_as_a_whole(s3, ckpts):
    """Its objects are in /tmp, and get there in pieces."""
    folder = ckpts(large=64 * MB)
    tracemalloc.start()
    try:
        Checkpoints(s3, folder, math.inf).bring_all()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # moto keeps the first 16 MB of an object in memory, twice while they move to the disk.
    assert peak < 40 * MB


def test_what_does_not_fit_is_left_out_and_named(s3, ckpts, capsys):
    """All objects and the largest once more; with what would have to be set."""
    Checkpoints(s3, ckpts(a=2 * MB, b=9 * MB, c=2 * MB), 7 * MB).bring_all()
    assert names(s3) == ["a/config.json", "a/model.safetensors", "c/config.json", "c/model.safetensors"]
    assert capsys.readouterr().err.endswith("/b is not in s3://huginn-ckpts: it does not fit into the memory; "
                                            "set HUGINN_AWS_MEMORY=277m\n")  # fmt: skip


@contextmanager
def somebody_else():
    """What a container is on the machine of who made the files, for as long as the block lasts."""
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(mine)


@pytest.mark.parametrize("closed", ["a", "a/config.json", "a/model.safetensors"])
def test_what_cannot_be_read_is_left_out_and_named(s3, capsys, closed):
    """The folder of a checkpoint as well as a file in it; nothing else suffers from it."""
    # Not pytest's folder, into which nobody but its owner may look.
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        for name in ("a", "b"):
            (folder / name).mkdir()
            for file in ("config.json", "model.safetensors"):
                (folder / name / file).write_bytes(b"{}")
        (folder / closed).chmod(0)
        with somebody_else():
            Checkpoints(s3, folder, math.inf).bring_all()
        (folder / closed).chmod(0o755)
    assert names(s3) == ["b/config.json", "b/model.safetensors"]
    said = capsys.readouterr().err
    assert f"{folder / 'a'} is not in s3://huginn-ckpts: " in said
    assert "Permission denied" in said
    assert "chmod -R a+rX" in said


def test_a_folder_that_is_not_there_is_an_empty_bucket(s3, tmp_path, capsys):
    """It is named, and the service is there."""
    Checkpoints(s3, tmp_path / "none", math.inf).bring_all()
    assert names(s3) == []
    assert "none is not in s3://huginn-ckpts" in capsys.readouterr().err


def asked(s3, checkpoints, path, method="GET"):
    """What the bucket has when moto comes to answer a request."""
    seen = []
    app = looking_again(checkpoints, lambda environ, start_response: seen.extend(names(s3)))
    app({"PATH_INFO": path, "REQUEST_METHOD": method}, None)
    return seen


def test_one_that_comes_later_is_there_when_it_is_asked_for(s3, ckpts):
    """By any of its files; not for a list, nor by what is no name of a checkpoint, nor by who writes."""
    folder = ckpts(first=MB)
    checkpoints = Checkpoints(s3, folder, math.inf)
    checkpoints.bring_all()
    ckpts(later=MB, **{".hidden": MB})
    before = ["first/config.json", "first/model.safetensors"]
    for path in ("/huginn-ckpts", "/huginn-ckpts/", "/huginn-ckpts/later/", "/other/later/config.json", "/", "",
                 "/huginn-ckpts/.hidden/config.json", "/huginn-ckpts/../config.json", "/huginn-ckpts//config.json",
                 "/huginn-ckpts/none/config.json", "/huginn-ckpts/a\0b/config.json"):  # fmt: skip
        assert asked(s3, checkpoints, path) == before
    assert asked(s3, checkpoints, "/huginn-ckpts/later/tokenizer.json", "PUT") == before
    after = [*before, "later/config.json", "later/model.safetensors"]
    assert asked(s3, checkpoints, "/huginn-ckpts/later/tokenizer.json") == after


def test_one_that_is_trained_further_replaces_itself(s3, ckpts):
    """Or was brought when only half of it was in the folder; what has not changed is not read again."""
    folder = ckpts(mine=MB)
    checkpoints = Checkpoints(s3, folder, math.inf)
    checkpoints.bring_all()
    unchanged = s3.get_object(BUCKET, "mine/model.safetensors")
    asked(s3, checkpoints, "/huginn-ckpts/mine/config.json", "HEAD")
    assert s3.get_object(BUCKET, "mine/model.safetensors") is unchanged
    (folder / "mine" / "model.safetensors").write_bytes(b"new")
    (folder / "mine" / "tokenizer.json").touch()
    asked(s3, checkpoints, "/huginn-ckpts/mine/config.json", "HEAD")
    assert s3.get_object(BUCKET, "mine/model.safetensors").value == b"new"
    (folder / "mine" / "tokenizer.json").unlink()
    asked(s3, checkpoints, "/huginn-ckpts/mine/config.json", "HEAD")
    assert names(s3) == ["mine/config.json", "mine/model.safetensors"]


def test_one_that_comes_later_must_fit_too(s3, ckpts, capsys):
    """Beside those that are there, or in place of itself; that it does not is said once, however often it is asked."""
    folder = ckpts(first=2 * MB)
    checkpoints = Checkpoints(s3, folder, 8 * MB)
    checkpoints.bring_all()
    ckpts(later=3 * MB)
    for _ in range(3):
        assert asked(s3, checkpoints, "/huginn-ckpts/later/config.json") == names(s3)
    assert capsys.readouterr().err.count("/later is not in s3://huginn-ckpts: it does not fit") == 1
    (folder / "first" / "model.safetensors").write_bytes(bytes(3 * MB))
    assert asked(s3, checkpoints, "/huginn-ckpts/first/config.json") == ["first/config.json", "first/model.safetensors"]
    assert s3.get_object(BUCKET, "first/model.safetensors").size == 3 * MB
    (folder / "first" / "model.safetensors").write_bytes(bytes(1 * MB))
    for path in ("/huginn-ckpts/first/config.json", "/huginn-ckpts/later/config.json"):
        found = asked(s3, checkpoints, path)
    assert "later/model.safetensors" in found


def test_the_limit_for_memory_is_the_kernel_s(tmp_path):
    """In either version of its control groups, or there is none."""
    first, second = tmp_path / "memory.max", tmp_path / "memory.limit_in_bytes"
    assert memory_limit([first, second]) == math.inf
    second.write_text("1610612736\n")
    assert memory_limit([first, second]) == 1536 * MB
    first.write_text("max\n")
    assert memory_limit([first, second]) == math.inf


def test_one_request_is_answered_at_a_time():
    """However many ask: each holds a whole object in memory."""
    inside, most = [], []

    def app(environ, start_response):
        inside.append(environ)
        most.append(len(inside))
        threading.Event().wait(0.02)
        inside.pop()
        return [b""]

    answer = one_at_a_time(app)
    threads = [threading.Thread(target=answer, args=({}, None)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]
