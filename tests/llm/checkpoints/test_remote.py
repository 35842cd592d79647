"""A checkpoint in S3: whole on this machine, or not at all, whatever happens on the way."""

import errno
import hashlib
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import boto3
import botocore.loaders
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from functions.llm.checkpoints import range_download, remote
from functions.llm.checkpoints.checkpoint import CheckpointError, load_checkpoint
from functions.llm.checkpoints.remote import RemoteCheckpoint, fetch_checkpoint
from functions.llm.checkpoints.s3_address import S3Address, S3AddressError
from functions.llm.cli import main
from functions.llm.commands.default_checkpoint import default_checkpoint
from functions.llm.served_first import default_model
from functions.llm.settings import Settings
from local.checkpoint import checkpoint_to_serve
from local.errors import CommandError
from tests.unused_ports import unused_port

from .flaky_s3 import FlakyS3, serving

REPOSITORY = Path(__file__).parents[3]
URL = "s3://huginn-ckpts/models/tiny-char"
WEIGHTS = "huginn-ckpts/models/tiny-char/model.safetensors"
CONFIG = "huginn-ckpts/models/tiny-char/config.json"
ENVIRON = {
    "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}  # fmt: skip

LOADER = botocore.loaders.create_loader()


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    """Of nobody; and no address of AWS is asked, for whatever is."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    # Reading what it knows of S3 takes botocore longer than all else here.
    monkeypatch.setattr(botocore.loaders, "create_loader", lambda *_paths: LOADER)
    # Nothing listens there.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    # 9 kB of weights in some ten parts.
    monkeypatch.setattr(range_download, "PART_BYTES", 1000)
    monkeypatch.setattr(range_download, "PIECE_BYTES", 300)
    monkeypatch.setattr(range_download, "FIRST_PAUSE_S", 0.01)


@pytest.fixture
def s3(checkpoints_folder, monkeypatch):
    """An S3 with a checkpoint in it."""
    files = (checkpoints_folder / "tiny-char").iterdir()
    objects = {f"huginn-ckpts/models/tiny-char/{file.name}": file.read_bytes() for file in files}
    with serving(FlakyS3(objects)) as served:
        monkeypatch.setenv("AWS_ENDPOINT_URL", served.url)
        yield served


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def checkpoint(cache):
    return RemoteCheckpoint(S3Address.parse(URL), cache)


def files(cache):
    """Every file under the cache, by its name without the folder that stands for the address."""
    return sorted("/".join(path.relative_to(cache).parts[1:]) for path in cache.rglob("*") if path.is_file())


WHOLE = ["card.md", "config.json", "model.safetensors", "tokenizer.json"]


def flipped(content):
    return content[:-1] + bytes([content[-1] ^ 1])


def test_what_is_in_a_bucket_is_loaded(checkpoints_folder, cache, monkeypatch):
    """Of moto's S3: the folder loads like the one that was uploaded, and what is uploaded later replaces it."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        client = boto3.client("s3")
        client.create_bucket(Bucket="huginn-ckpts", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        for name in ("tiny-char", "tiny-byte"):
            for file in (checkpoints_folder / name).iterdir():
                client.put_object(Bucket="huginn-ckpts", Key=f"models/tiny-char/{file.name}", Body=file.read_bytes())
            uploaded = load_checkpoint(checkpoints_folder / name)
            fetched = load_checkpoint(fetch_checkpoint(URL, cache))
            assert (fetched.name, fetched.digest) == ("tiny-char", uploaded.digest)
            for param, value in uploaded.model.params.items():
                np.testing.assert_array_equal(fetched.model.params[param], value)
        with pytest.raises(CheckpointError, match=r"there is no bucket huginn-other; those that are: aws s3 ls"):
            fetch_checkpoint("s3://huginn-other/models/tiny-char", cache)
    finally:
        server.stop()


def test_it_is_read_in_ranges_several_at_a_time(s3, checkpoint):
    """Each byte once, by connections side by side."""
    at_once = threading.Barrier(3, timeout=30)
    s3.before_range = lambda _s3: at_once.wait() if len(s3.ranges_of("model.safetensors")) <= 3 else None
    folder = checkpoint.fetch()
    size = len(s3.objects[WEIGHTS])
    assert size > 8000
    expected = {f"bytes={begin}-{min(begin + 1000, size) - 1}" for begin in range(0, size, 1000)}
    assert sorted(s3.ranges_of("model.safetensors")) == sorted(expected)
    assert sorted(path.name for path in folder.iterdir()) == WHOLE
    assert (folder / "model.safetensors").read_bytes() == s3.objects[WEIGHTS]


@given(size=st.integers(0, 3000), part=st.integers(1, 999))
def test_a_download_is_the_object(size, part, tmp_path_factory):
    """Of any size, in parts of any size; the digest is that of the file."""
    content = bytes(index % 251 for index in range(size))

    class Client:
        def get_object(self, Bucket, Key, IfMatch, Range):
            begin, end = map(int, Range.removeprefix("bytes=").split("-"))
            assert end < size
            return {"ContentRange": f"bytes {begin}-{end}/{size}", "Body": Body(content[begin : end + 1])}

    class Body:
        def __init__(self, rest):
            self.rest = rest

        def read(self, count):
            piece, self.rest = self.rest[: min(count, 77)], self.rest[min(count, 77) :]
            return piece

        def close(self):
            pass

    folder = tmp_path_factory.mktemp("download")
    heard = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(range_download, "PART_BYTES", part)
        digest = range_download.download(
            Client(), range_download.S3Object("b", "k", "e", size), folder / "file", folder / "parts",
            progress=lambda *progress: heard.append(progress), stopping=threading.Event(),
        )  # fmt: skip
    assert (folder / "file").read_bytes() == content
    assert digest == hashlib.sha256(content).hexdigest()
    assert heard[-1] == (size, size)
    assert heard == sorted(heard)


def test_what_is_here_is_not_downloaded_again(s3, checkpoint):
    """Of the second fetch only the small files are read, to see whether they are the same."""
    folder = checkpoint.fetch()
    s3.asked.clear()
    assert checkpoint.fetch() == folder
    assert {key.rpartition("/")[2] for _, key, _ in s3.asked} == {"card.md", "config.json", "tokenizer.json"}


def test_a_damaged_copy_is_replaced(s3, checkpoint):
    """Whatever was done to the folder: what it has is compared with the bucket at every start."""
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        file = checkpoint.fetch() / name
        content = file.read_bytes()
        file.write_bytes(flipped(content))
        assert (checkpoint.fetch() / name).read_bytes() == content
        file.unlink()
        assert (checkpoint.fetch() / name).read_bytes() == content


def test_a_broken_connection_goes_on_where_it_broke(s3, checkpoint):
    """Only what is missing is asked for again."""
    s3.cuts, s3.cut_after = 6, 400
    folder = checkpoint.fetch()
    assert (folder / "model.safetensors").read_bytes() == s3.objects[WEIGHTS]
    ranges = s3.ranges_of("model.safetensors")
    assert sum(begin.removeprefix("bytes=").partition("-")[0].endswith("400") for begin in ranges) >= 1
    assert len(ranges) == -(-len(s3.objects[WEIGHTS]) // 1000) + 6


def test_a_connection_that_brings_nothing_is_given_up(s3, checkpoint, cache):
    """After a few attempts; what has arrived is kept, and the next fetch needs only the rest."""
    s3.cuts, s3.cut_after = 10**6, 0
    with pytest.raises(CheckpointError, match=r"S3 cannot be read .* what has arrived is kept"):
        checkpoint.fetch()
    s3.cuts = 0
    checkpoint.fetch()
    assert files(cache) == [f"tiny-char/{name}" for name in WHOLE]


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_tampered_checkpoint_is_refused_and_never_served(file, s3, checkpoint, cache):
    """The weights are not what config.json says, or the other way about: no folder, and nothing of it kept."""
    key = f"huginn-ckpts/models/tiny-char/{file}"
    good = s3.objects[key]
    digest = hashlib.sha256(s3.objects[WEIGHTS]).hexdigest().encode()
    s3.objects[key] = flipped(good) if file == "model.safetensors" else good.replace(digest, b"0" * 64)
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"model\.safetensors: SHA-256 is .* nothing of it is kept"):
            checkpoint.fetch()
        assert files(cache) == []
    # Asked a second time, it has not downloaded a second time what was refused the first time.
    assert len(s3.ranges_of("model.safetensors")) == -(-len(s3.objects[WEIGHTS]) // 1000)
    s3.objects[key] = good
    assert load_checkpoint(checkpoint.fetch()).name == "tiny-char"


def test_a_tampered_replacement_leaves_what_was_there(s3, checkpoint):
    """The folder of before is still whole, for whoever has it open; the fetch itself is refused."""
    folder = checkpoint.fetch()
    config = s3.objects[CONFIG]
    digest = hashlib.sha256(s3.objects[WEIGHTS]).hexdigest().encode()
    s3.objects[CONFIG] = config.replace(digest, b"0" * 64)
    with pytest.raises(CheckpointError, match="SHA-256 is"):
        checkpoint.fetch()
    assert (folder / "config.json").read_bytes() == config
    load_checkpoint(folder)


def test_the_server_serves_it_and_refuses_it(s3, cache):
    """By the settings' own way: a tampered one is why it is not ready, the right one is served once it is there."""
    good, s3.objects[WEIGHTS] = s3.objects[WEIGHTS], flipped(s3.objects[WEIGHTS])
    default = default_model(Settings(S3Address.parse(URL), ckpt_cache=cache))
    assert default.name == "tiny-char"
    default.begin()
    default.join(60)
    assert not default.ready
    assert "SHA-256 is" in default.failure
    assert default.store.loaded() is None
    assert default.store.descriptions() == []
    s3.objects[WEIGHTS] = good
    assert default.store.get().checkpoint.digest == hashlib.sha256(good).hexdigest()
    assert [model.name for model in default.store.descriptions()] == ["tiny-char"]
    default.stop()


def test_the_server_serves_no_weights_but_those_that_were_tried(s3, cache):
    """What is put under the same address later, whole as it is, is refused by the digest that the server was given."""
    config, digest = s3.objects[CONFIG], hashlib.sha256(s3.objects[WEIGHTS]).hexdigest()
    settings = Settings(S3Address.parse(URL), ckpt_cache=cache, checkpoint_digest=digest)
    s3.objects[WEIGHTS] = flipped(s3.objects[WEIGHTS])
    replaced = hashlib.sha256(s3.objects[WEIGHTS]).hexdigest()
    s3.objects[CONFIG] = config.replace(digest.encode(), replaced.encode())
    default = default_model(settings)
    with pytest.raises(CheckpointError, match=f"digest is {replaced}, CHECKPOINT_DIGEST says {digest}; "):
        default.store.get()
    assert default.store.loaded() is None
    s3.objects.update({WEIGHTS: flipped(s3.objects[WEIGHTS]), CONFIG: config})
    assert default.store.get().checkpoint.digest == digest


def test_a_server_that_ends_does_not_wait_for_its_download(s3, cache):
    """However long the network makes it wait."""
    s3.stalled_after = 2000
    default = default_model(Settings(S3Address.parse(URL), ckpt_cache=cache))
    default.begin()
    assert s3.stalled.wait(60)
    default.stop(timeout_s=60)
    assert default._thread is not None
    assert not default._thread.is_alive()
    assert not s3.released.is_set()
    assert "was stopped" in default.failure


def test_what_is_replaced_while_it_is_read_is_read_anew(s3, checkpoint):
    """Never a mixture of the two."""
    old, new = s3.objects[WEIGHTS], flipped(s3.objects[WEIGHTS])

    def replace(_s3):
        if len(s3.ranges_of("model.safetensors")) == 5:
            s3.objects[WEIGHTS] = old

    s3.objects[WEIGHTS] = new
    s3.before_range = replace
    assert (checkpoint.fetch() / "model.safetensors").read_bytes() == old


def test_what_is_replaced_all_the_time_is_not_read_for_ever(s3, checkpoint):
    """It says so, and what to do."""

    def replace(_s3):
        s3.objects[WEIGHTS] = flipped(s3.objects[WEIGHTS])

    s3.before_range = replace
    with pytest.raises(CheckpointError, match=r"replaced again and again .* once its upload is done"):
        checkpoint.fetch()


def parts_in(cache):
    """How many parts a download that is not done has brought, once it has brought one."""
    for _ in range(3000):
        for journal in cache.rglob("parts"):
            if whole := journal.read_bytes().partition(b"\n")[2].count(1):
                return whole
        time.sleep(0.01)
    raise AssertionError("no part has arrived")


def test_a_part_that_is_marked_and_not_there_is_found_out(s3, checkpoint, cache):
    """As after a power failure: the digest says so, and everything is read again."""
    # Six thousand of nine: of eight parts at a time four are there at least.
    s3.stalled_after = 6000
    threading.Thread(target=lambda: (s3.stalled.wait(60), parts_in(cache), checkpoint.stop())).start()
    with pytest.raises(CheckpointError, match="was stopped; what has arrived is kept"):
        checkpoint.fetch()
    [partial] = cache.rglob("*.part")
    (partial / "model.safetensors").write_bytes(bytes(len(s3.objects[WEIGHTS])))
    s3.released.set()
    folder = fetch_checkpoint(URL, cache)
    assert (folder / "model.safetensors").read_bytes() == s3.objects[WEIGHTS]


SMALL_PARTS = """
import sys
from functions.llm.checkpoints import range_download
range_download.PART_BYTES = 1000
"""

FETCH = """
from pathlib import Path
from functions.llm.checkpoints.remote import fetch_checkpoint
print("go", flush=True)
print(fetch_checkpoint(sys.argv[1], Path(sys.argv[2])))
"""


def test_ctrl_c_leaves_what_the_next_fetch_needs_and_nothing_else(s3, cache):
    """The process ends while its connections stand still, and the next one asks only for what is missing."""
    s3.stalled_after = 6000
    process = subprocess.Popen(
        [sys.executable, "-c", SMALL_PARTS + FETCH, URL, str(cache)],
        cwd=REPOSITORY, env={**ENVIRON, "AWS_ENDPOINT_URL": s3.url, "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert s3.stalled.wait(60)
        assert parts_in(cache)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert said.strip().splitlines()[-1] == "KeyboardInterrupt"
    finally:
        process.kill()
        process.communicate()
    assert files(cache) == [".tiny-char.part/model.safetensors", ".tiny-char.part/parts"]
    whole = parts_in(cache)
    s3.stalled_after = None
    s3.released.set()
    s3.asked.clear()
    fetch_checkpoint(URL, cache)
    assert len(s3.ranges_of("model.safetensors")) == -(-len(s3.objects[WEIGHTS]) // 1000) - whole
    assert files(cache) == [f"tiny-char/{name}" for name in WHOLE]


def test_those_who_come_together_download_once(s3, cache):
    """One brings it, the other waits and finds it there."""
    s3.stalled_after = 2000
    found = []
    threads = [threading.Thread(target=lambda: found.append(fetch_checkpoint(URL, cache))) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert s3.stalled.wait(60)
    s3.released.set()
    for thread in threads:
        thread.join(60)
    assert found[0] == found[1]
    assert len(s3.ranges_of("model.safetensors")) == -(-len(s3.objects[WEIGHTS]) // 1000)


def test_a_full_disk_is_said_before_anything_is_read(s3, checkpoint, monkeypatch):
    """How much is missing, where, and what to set."""
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(remote.shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    with pytest.raises(CheckpointError, match=r"needs 0 MB more, 0 MB are free; .* set CKPT_CACHE"):
        checkpoint.fetch()
    assert s3.ranges_of("model.safetensors") == []


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "make room there or set CKPT_CACHE"),
        (errno.EROFS, "set CKPT_CACHE to a folder that can be written"),
    ],
)
def test_a_disk_that_takes_no_more_is_named(number, remedy, s3, checkpoint, monkeypatch):
    """In the middle of it, by the thread that writes."""
    pwrite = os.pwrite

    def failing(file, content, at):
        if at > 3000:
            raise OSError(number, os.strerror(number))
        return pwrite(file, content, at)

    monkeypatch.setattr(range_download.os, "pwrite", failing)
    with pytest.raises(CheckpointError, match=f"{os.strerror(number)}, which {URL} needs; {remedy}"):
        checkpoint.fetch()
    monkeypatch.undo()


def test_a_cache_that_is_a_file_is_named(s3, tmp_path):
    """As anything else that cannot be written to."""
    (tmp_path / "cache").write_text("")
    with pytest.raises(CheckpointError, match=r"Not a directory, .* set CKPT_CACHE to a folder that can be written"):
        fetch_checkpoint(URL, tmp_path / "cache")


@pytest.mark.parametrize(
    ("file", "error", "message"),
    [
        (
            "config.json",
            (404, "NoSuchKey"),
            r"config\.json: no such object; what there is: aws s3 ls s3://huginn-ckpts/m",
        ),
        ("model.safetensors", (404, ""), r"model\.safetensors: no such object"),
        ("config.json", (403, "AccessDenied"), r"lack s3:GetObject on arn:aws:s3:::huginn-ckpts/models/tiny-char/\*"),
        ("model.safetensors", (403, ""), r"access denied; it is not there, or"),
        ("config.json", (400, "ExpiredToken"), r"S3 refuses the credentials \(ExpiredToken\); renew them"),
        ("config.json", (409, "Odd"), r"S3 answers Odd: As told"),
    ],
)
def test_a_refusal_names_the_object_and_the_next_step(file, error, message, s3, checkpoint, cache):
    """And leaves nothing."""
    s3.errors[f"huginn-ckpts/models/tiny-char/{file}"] = error
    with pytest.raises(CheckpointError, match=message):
        checkpoint.fetch()
    assert files(cache) == []


def test_a_card_is_not_needed(s3, checkpoint):
    """It is for people."""
    del s3.objects["huginn-ckpts/models/tiny-char/card.md"]
    assert load_checkpoint(checkpoint.fetch()).name == "tiny-char"


def test_what_knows_no_ranges_is_no_s3(s3, checkpoint):
    """The whole for each part would be too much, and wrong."""
    s3.ignores_ranges = True
    with pytest.raises(CheckpointError, match="a server that cannot answer range requests is no S3"):
        checkpoint.fetch()


def test_without_credentials_it_says_which_to_set(s3, checkpoint, monkeypatch):
    """And asks nobody."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(CheckpointError, match=r"no AWS credentials .* set AWS_PROFILE, or AWS_ACCESS_KEY_ID"):
        checkpoint.fetch()
    assert s3.asked == []


def test_an_s3_that_is_not_there_is_named(checkpoint):
    """With what may be set wrong."""
    with pytest.raises(CheckpointError, match=r"127\.0\.0\.1:9.* look at the network and AWS_ENDPOINT_URL"):
        checkpoint.fetch()


def test_two_addresses_that_end_alike_are_two_folders(cache):
    """And the folder's name is the model's."""
    here, there = (RemoteCheckpoint(S3Address("bucket", prefix), cache).folder for prefix in ("a/raven", "b/raven"))
    assert here != there
    assert here.name == there.name == "raven"


@pytest.mark.parametrize(
    "text",
    ["", "s3:/bucket/raven", "s3://", "s3://bucket", "s3://bucket/", "s3://b/raven", "s3://Bucket/raven", "S3://bucket/a",
     "s3:///raven", "s3://bucket/..", "s3://bucket/a/.", "s3://bucket/.raven", "s3://bucket/a\0b", "/ckpts/raven"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text):
    """It says what was expected."""
    with pytest.raises(S3AddressError, match=r"expected s3://bucket/prefix"):
        S3Address.parse(text)


@pytest.mark.parametrize("text", ["s3://huginn-ckpts/raven", "s3://huginn-ckpts/a/b c/ré"])
def test_an_address_is_written_as_it_was_read(text):
    """A slash at its end means nothing."""
    assert str(S3Address.parse(text)) == str(S3Address.parse(f"{text}/")) == text
    assert S3Address.parse(text).name == text.rpartition("/")[2]


def test_a_command_that_is_watched_shows_how_far_it_is(s3, tmp_path):
    """In one line on its terminal, which is gone when it is done; and the text is the model's."""
    s3.stalled_after = 5000
    script = f"{SMALL_PARTS}from local.cli import main; sys.exit(main(sys.argv[1:]))"
    keyboard, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script, "generate", "--seed", "the raven", "--chars", "5", "--json"],
        cwd=REPOSITORY,
        env={**ENVIRON, "AWS_ENDPOINT_URL": s3.url, "PATH": "/usr/bin:/bin", "CKPT_PATH": URL, "HOME": str(tmp_path)},
        stdout=subprocess.PIPE, stderr=terminal, text=True,
    )  # fmt: skip
    os.close(terminal)
    try:
        said = b""
        while b" MB/s" not in said:
            said += os.read(keyboard, 1000)
        s3.released.set()
        answer, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
        os.close(keyboard)
    assert f"huginn: {URL}: 0 of 0 MB".encode() in said
    assert '"model": "tiny-char"' in answer
    assert (tmp_path / ".cache" / "huginn" / "ckpts").is_dir()


def test_a_function_answers_with_a_model_of_s3(s3, tmp_path):
    """In a fresh process, by the handler; what it has brought is in the cache afterwards."""
    script = """
        import asyncio, json
        asyncio.set_event_loop(asyncio.new_event_loop())
        from functions.llm.handler import handler
        print(json.loads(handler(json.loads(input()), None)["body"])["model"])
    """
    event = {
        "version": "2.0", "routeKey": "$default", "rawPath": "/generate", "rawQueryString": "",
        "headers": {"content-type": "application/json"}, "isBase64Encoded": False,
        "requestContext": {"http": {"method": "POST", "path": "/generate", "sourceIp": "127.0.0.1"}},
        "body": json.dumps({"prompt": "the raven", "max_tokens": 3}),
    }  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=REPOSITORY, input=json.dumps(event), capture_output=True, text=True, check=True,
        env={**ENVIRON, "AWS_ENDPOINT_URL": s3.url, "PATH": "/usr/bin:/bin", "CKPT_PATH": URL, "METRICS_PORT": "0",
             "CKPT_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert run.stdout.splitlines()[-1] == "tiny-char"
    assert files(tmp_path / "cache") == [f"tiny-char/{name}" for name in WHOLE]


def test_a_server_on_this_machine_downloads_before_it_serves(s3, tmp_path):
    """Or refuses in words; a folder that is named needs nothing of S3."""
    environ = {"CKPT_PATH": URL, "CKPT_CACHE": str(tmp_path / "cache")}
    assert checkpoint_to_serve(None, environ).name == "tiny-char"
    assert checkpoint_to_serve(tmp_path / "mine", environ) == tmp_path / "mine"
    s3.errors[CONFIG] = (403, "AccessDenied")
    with pytest.raises(CommandError, match=r"lack s3:GetObject on .*\n.*--ckpt DIR") as refused:
        checkpoint_to_serve(None, environ)
    assert refused.value.exit_code == 3
    with pytest.raises(CheckpointError, match="there is no HOME to keep it in; set CKPT_CACHE"):
        default_checkpoint({"CKPT_PATH": URL})


def test_only_the_models_tier_waits_for_the_model(s3):
    """The API's, in the same environment, asks S3 for nothing."""
    script = """
        import sys, uvicorn
        uvicorn.run = lambda app, **_options: print(app)
        from local.cli import main
        sys.exit(main(["serve", "backend", "--api-port", sys.argv[1]]))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(unused_port())],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
        env={**ENVIRON, "AWS_ENDPOINT_URL": s3.url, "PATH": "/usr/bin:/bin", "CKPT_PATH": URL},
    )  # fmt: skip
    assert run.stdout == "functions.backend.handler:app\n"
    assert s3.asked == []


@pytest.mark.parametrize("command", [["generate", "--seed", "a"], ["models"], ["compile"], ["doctor"]])
def test_a_command_that_cannot_have_it_says_why(command, s3, tmp_path, monkeypatch, capsys):
    """In one line, and with the exit code of a bad input; doctor goes on with what else there is."""
    s3.errors[CONFIG] = (403, "AccessDenied")
    monkeypatch.setenv("CKPT_PATH", URL)
    monkeypatch.setenv("CKPT_CACHE", str(tmp_path / "cache"))
    assert main(command) == (1 if command == ["doctor"] else 3)
    said = capsys.readouterr()
    assert "access denied" in (said.out if command == ["doctor"] else said.err)
