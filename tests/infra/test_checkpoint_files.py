"""What is in the bucket is judged as the loader would judge it, without what the loader needs."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import boto3
import jax
import numpy as np
import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws
from safetensors.numpy import load_file, save_file

from functions.llm.checkpoints.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from functions.llm.checkpoints.quantized_model import quantize_model
from functions.llm.inference.model_store import describe_checkpoint
from functions.llm.models import FAMILIES as SERVED_FAMILIES
from functions.llm.models import LSTM, LSTMConfig, MinGRU, MinGRUConfig, model_config
from functions.llm.tokenizers import ByteTokenizer, CharTokenizer, train_bpe
from infra import checkpoint_files
from infra.checkpoint_files import FAMILIES, CheckpointRefused, check_files

REPOSITORY = Path(__file__).parents[2]
BUCKET, PREFIX = "huginn-ckpts", "models/raven"


@pytest.fixture(scope="module")
def bucket():
    """An S3 in this process, with a bucket."""
    with pytest.MonkeyPatch.context() as environ, mock_aws():
        environ.setenv("AWS_ACCESS_KEY_ID", "testing")
        environ.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        client = boto3.client("s3", region_name="eu-west-1")
        client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        yield client


@pytest.fixture
def s3(bucket):
    """The same, the bucket empty."""
    for item in bucket.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        bucket.delete_object(Bucket=BUCKET, Key=item["Key"])
    return bucket


@pytest.fixture
def upload(s3):
    """Puts a folder's files where a checkpoint is looked for."""

    def put(folder):
        # A training's own folder may stand beside them.
        for file in filter(Path.is_file, folder.iterdir()):
            s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{file.name}", Body=file.read_bytes())

    return put


def mingru(tokenizer):
    config = MinGRUConfig(vocab_size=tokenizer.vocab_size, width=4, hidden=6, layers=2, conv=3, mlp=2)
    return MinGRU(config, MinGRU.init_params(config, jax.random.key(0)))


def lstm(tokenizer):
    config = LSTMConfig(vocab_size=tokenizer.vocab_size, emb=3, hid=5, layers=2, dropout=0.25)
    return LSTM(config, LSTM.init_params(config, jax.random.key(0)))


@pytest.fixture(scope="module")
def whole_lstm(tmp_path_factory):
    """A checkpoint's folder, saved once."""
    folder = tmp_path_factory.mktemp("whole") / "raven"
    save_checkpoint(folder, lstm(CHARS), CHARS, "# raven\n")
    return folder


@pytest.fixture
def folder(whole_lstm, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(whole_lstm, tmp_path / "raven")


CHARS = CharTokenizer.from_text("abcdé ")
BPE = train_bpe(["the raven and the jackdaw, the raven and the crow"] * 3, 270)

WHOLE = {
    "mingru over bytes": (mingru, ByteTokenizer()),
    "mingru over characters": (mingru, CHARS),
    "mingru over a BPE": (mingru, BPE),
    "lstm": (lstm, CHARS),
    "mingru in int8": (lambda tokenizer: quantize_model(mingru(tokenizer), "int8"), CHARS),
    "lstm in int8": (lambda tokenizer: quantize_model(lstm(tokenizer), "int8"), CHARS),
    "lstm in bfloat16": (lambda tokenizer: quantize_model(lstm(tokenizer), "bfloat16"), CHARS),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_of_a_whole_checkpoint_it_says_what_the_loader_says(kind, s3, upload, tmp_path):
    """Every family, tokenizer and type of weights; and the slash at a prefix's end does not matter."""
    make, tokenizer = WHOLE[kind]
    save_checkpoint(tmp_path / "raven", make(tokenizer), tokenizer, "# raven\n")
    upload(tmp_path / "raven")
    facts = check_files(s3, BUCKET, PREFIX)
    described = describe_checkpoint(tmp_path / "raven")
    assert {name: getattr(facts, name) for name in vars(facts)} == vars(described)
    assert check_files(s3, BUCKET, f"/{PREFIX}/") == facts


def test_the_bundled_checkpoint_is_whole(s3, upload):
    """Eight megabytes, in pieces."""
    bundled = REPOSITORY / "ckpts" / "muninn-char"
    upload(bundled)
    assert check_files(s3, BUCKET, PREFIX).digest == describe_checkpoint(bundled).digest


def config(**changes):
    def apply(folder):
        values = json.loads((folder / "config.json").read_text())
        for name, value in changes.items():
            where, field = (values["model"], name[6:]) if name.startswith("model_") else (values, name)
            where.pop(field) if value is None else where.update({field: value})
        (folder / "config.json").write_text(json.dumps(values))

    return apply


def tokenizer(**values):
    return lambda folder: (folder / "tokenizer.json").write_text(json.dumps(values))


def renewed_digest(folder):
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    config(digest=digest)(folder)


def weights(change):
    """The file's bytes changed, under a digest that belongs to them."""

    def apply(folder):
        file = folder / "model.safetensors"
        file.write_bytes(change(file.read_bytes()))
        renewed_digest(folder)

    return apply


def header(change):
    """The header changed, and the data as they were."""

    def changed(content):
        end = 8 + int.from_bytes(content[:8], "little")
        text = json.dumps(change(json.loads(content[8:end]))).encode()
        return len(text).to_bytes(8, "little") + text + content[end:]

    return weights(changed)


def tensors(change):
    """The tensors changed, and written by the safetensors library."""

    def apply(folder):
        values = load_file(folder / "model.safetensors")
        change(values)
        save_file(values, folder / "model.safetensors")
        renewed_digest(folder)

    return apply


def flip_a_bit(folder):
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def entry(name, **changes):
    return header(lambda entries: entries | {name: entries[name] | changes})


# What spoils a checkpoint, and what must be said of it.
SPOILED = {
    "a flipped bit": (flip_a_bit, r"model\.safetensors: SHA-256 is .*, config\.json says"),
    "no config": (lambda folder: (folder / "config.json").unlink(), r"config\.json: no such object"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), r"model\.safetensors: no such object"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), r"tokenizer\.json: no such object"),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), r"config\.json is not JSON"),
    "endless JSON": (lambda folder: (folder / "tokenizer.json").write_text("[" * 100_000), "is not JSON"),
    "a list": (lambda folder: (folder / "config.json").write_text("[]"), "format is 'list'"),
    "another format": (config(format=9), "format is 9, this version reads 1"),
    "no digest": (config(digest=None), "digest is None, expected a str"),
    "another digest": (config(digest="0" * 64), "config.json says 0000"),
    "a foreign family": (config(model_family="gpt"), "family is 'gpt'"),
    "a foreign field": (config(model_heads=4), "'heads' is not a field of a lstm"),
    "no vocabulary": (config(model_vocab_size=None), "vocab_size is None"),
    "half a unit": (config(model_hid=2.5), "hid is 2.5; it must be a whole number"),
    "true layers": (config(model_layers=True), "layers is True"),
    "no units": (config(model_hid=0), "hid is 0"),
    "all dropped": (config(model_dropout=1.0), "dropout is 1.0"),
    "another shape": (config(model_emb=4), r"emb\.weight has shape \(6, 3\), config\.json says \(6, 4\)"),
    "more layers": (config(model_layers=3), r"rnn\.weight_\w+_l2 is missing|rnn\.bias_\w+_l2 is missing"),
    "fewer layers": (config(model_layers=1), "is not a parameter of this lstm"),
    "another tokenizer": (config(tokenizer="bpe"), r"tokenizer\.json is char, config\.json says 'bpe'"),
    "another vocabulary": (tokenizer(type="char", chars=["a", "b"]), "has 2 tokens, the model's vocabulary 6"),
    "a character twice": (tokenizer(type="char", chars=list("abcdaa")), "more than once"),
    "two characters": (tokenizer(type="char", chars=["ab", *"cdefg"]), "chars is no list of characters"),
    "a foreign fallback": (tokenizer(type="char", chars=list("abcdef"), fallback="x"), "fallback is 'x'"),
    "no tokenizer's type": (tokenizer(type="words"), "type is 'words'"),
    "an empty BPE": (tokenizer(model={}), "expected a BPE"),
    "a tensor missing": (tensors(lambda t: t.pop("head.bias")), r"head\.bias is missing"),
    "a tensor more": (tensors(lambda t: t.update(extra=np.ones(1, np.float32))), "'extra' is not a parameter"),
    "doubles": (tensors(lambda t: t.update({"head.bias": np.ones(6)})), "has the dtype 'F64'"),
    "int8 without scales": (
        tensors(lambda t: t.update({"head.weight": np.ones((6, 5), np.int8)})),
        r"head\.weight\.scale is missing",
    ),
    "int8 with other scales": (
        tensors(lambda t: t.update({"head.weight": np.ones((6, 5), np.int8), "head.weight.scale": np.ones(5, "<f4")})),
        r"head\.weight\.scale is F32 of shape \(5,\), expected F32 of shape \(6,\)",
    ),
    "an int8 embedding": (
        tensors(lambda t: t.update({"emb.weight": np.ones((6, 3), np.int8), "emb.weight.scale": np.ones(6, "<f4")})),
        r"emb\.weight is int8, which it cannot be",
    ),
    "cut short": (weights(lambda content: content[:-1]), "cut short"),
    "empty": (weights(lambda content: b""), "no safetensors file, or cut short"),
    "only a length": (weights(lambda content: content[:8]), "no safetensors file, or cut short"),
    "an endless header": (weights(lambda content: b"\xff" * 8 + content[8:]), "the header should have"),
    "a header of noise": (weights(lambda content: content[:8] + b"\xff" + content[9:]), "the header is not JSON"),
    "a header that is a list": (weights(lambda content: (2).to_bytes(8, "little") + b"[]"), "is a JSON list"),
    "something after the end": (weights(lambda content: content + b"\0"), "for them: cut short"),
    "a negative size": (entry("head.bias", shape=[-6]), "expected a list of sizes"),
    "a shape of another size": (entry("head.bias", shape=[5]), r"F32 of shape \(5,\) has 20 bytes"),
    "overlapping tensors": (entry("head.bias", data_offsets=[0, 24]), "begins at byte"),
    "an entry that is none": (header(lambda entries: entries | {"head.bias": 3}), "expected an object"),
}


@pytest.mark.parametrize("how", SPOILED)
def test_what_the_loader_refuses_is_refused(how, s3, upload, folder):
    """By a reason that names the object, what is in it and what was expected."""
    spoil, reason = SPOILED[how]
    spoil(folder)
    upload(folder)
    with pytest.raises(CheckpointRefused, match=reason) as refused:
        check_files(s3, BUCKET, PREFIX)
    assert f"s3://{BUCKET}/{PREFIX}/" in refused.value.reason
    with pytest.raises(CheckpointError):
        load_checkpoint(folder)


def test_a_name_twice_in_a_header_is_refused(s3, upload, folder):
    """Readers would not agree on which of the two is meant."""

    def twice(content):
        end = 8 + int.from_bytes(content[:8], "little")
        text = b'{"head.bias":3,' + content[9:end]
        return len(text).to_bytes(8, "little") + text + content[end:]

    weights(twice)(folder)
    upload(folder)
    with pytest.raises(CheckpointRefused, match="a name stands there twice"):
        check_files(s3, BUCKET, PREFIX)


@pytest.mark.parametrize("prefix", ["", "/", "models/..", "."])
def test_a_checkpoint_has_a_name(prefix, s3):
    """The prefix's last part, which is what the API calls it."""
    with pytest.raises(CheckpointRefused, match="names no checkpoint"):
        check_files(s3, BUCKET, prefix)


def test_what_is_too_large_is_not_read(s3, upload, folder, monkeypatch):
    """The function that asks has little memory."""
    upload(folder)
    monkeypatch.setattr(checkpoint_files, "MAX_CONFIG_BYTES", 10)
    with pytest.raises(CheckpointRefused, match="at most 10 are read"):
        check_files(s3, BUCKET, PREFIX)


class Answering:
    """A client whose every answer is one error."""

    class exceptions:
        ClientError = ClientError

    def __init__(self, code):
        self.code = code

    def get_object(self, **_asked):
        raise ClientError({"Error": {"Code": self.code, "Message": ""}}, "GetObject")


def test_a_denial_says_what_is_missing():
    """Without s3:ListBucket S3 says no more of an object that is not there."""
    with pytest.raises(CheckpointRefused, match=r"access denied; it is not there, or .* s3:GetObject"):
        check_files(Answering("AccessDenied"), BUCKET, PREFIX)


def test_an_s3_that_is_busy_is_no_verdict():
    """The checkpoint is not refused for it: the error travels, and the event is tried again."""
    with pytest.raises(ClientError):
        check_files(Answering("SlowDown"), BUCKET, PREFIX)


sizes = st.integers(1, 9)


@given(st.sampled_from(sorted(FAMILIES)), st.data())
def test_the_families_are_those_that_are_served(family, data):
    """Fields, defaults, shapes, and what may be int8: the same as in functions.llm.models, of whatever size."""
    assert FAMILIES.keys() == SERVED_FAMILIES.keys()
    given_sizes = {"vocab_size": data.draw(sizes)} | {
        field: data.draw(sizes) for field in FAMILIES[family].defaults if data.draw(st.booleans())
    }
    served = model_config({"family": family, **given_sizes})
    all_sizes = {**FAMILIES[family].defaults, **given_sizes}
    assert {name: getattr(served, name) for name in vars(served) if name not in {"family", "dropout"}} == all_sizes
    shapes = FAMILIES[family].shapes(all_sizes)
    assert shapes == served.param_shapes()
    assert {name for name, shape in shapes.items() if FAMILIES[family].int8(name, shape)} == served.dense_weights()


def test_it_needs_the_standard_library_only():
    """It runs in a function that has neither jax nor numpy, nor a botocore of ours."""
    script = """
        import sys
        before = set(sys.modules)
        import infra.checkpoint_files
        print(*sorted({name.split(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))
    """
    run = subprocess.run(
        [sys.executable, "-c", "\n".join(line.strip() for line in script.splitlines())],
        capture_output=True, text=True, check=True, cwd=REPOSITORY,
    )  # fmt: skip
    assert run.stdout.split() == ["infra"]
