"""The environment, read once."""

from pathlib import Path

import pytest

from functions.llm.checkpoints.s3_address import S3Address
from functions.llm.settings import Settings, SettingsError


def test_an_empty_environment_gives_the_defaults():
    """What the README says, and what the predecessor's containers expect."""
    assert Settings.from_env({}) == Settings(
        Path("ckpts/muninn-char"),
        metrics_port=9108,
        metrics_host="0.0.0.0",
        max_queue=64,
        max_active=16,
        max_loaded_models=2,
    )


def test_every_variable_is_read():
    """Each has its field."""
    environ = {
        "CKPT_PATH": "/ckpts/a", "METRICS_PORT": "0", "METRICS_HOST": "127.0.0.1", "MAX_QUEUE": "0", "MAX_ACTIVE": "1",
        "MAX_LOADED_MODELS": "3", "CACHE_PATH": "/cache", "CKPT_CACHE": "/fetched",
        "CHECKPOINT_DIGEST": "0123456789abcdef" * 4, "WATTS_PER_CPU": "7.25",
    }  # fmt: skip
    assert Settings.from_env(environ) == Settings(
        Path("/ckpts/a"), 0, "127.0.0.1", 0, 1, 3, cache_path=Path("/cache"), ckpt_cache=Path("/fetched"),
        checkpoint_digest="0123456789abcdef" * 4, watts_per_cpu=7.25,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"HOME": "/home"}, "/home/.cache/huginn"),
        ({"HOME": "/home", "XDG_CACHE_HOME": "/x"}, "/x/huginn"),
        ({"HOME": "/home", "XDG_CACHE_HOME": "relative"}, "/home/.cache/huginn"),
        ({"HOME": "/home", "XDG_CACHE_HOME": "/x", "CACHE_PATH": "mine"}, "mine"),
    ],
)
def test_the_cache_is_where_a_users_caches_are(environ, path):
    """Unless another folder is named."""
    settings = Settings.from_env(environ)
    assert settings.executables_path == Path(path, "executables")
    assert settings.jit_cache_path == Path(path, "jit")


@pytest.mark.parametrize(
    ("environ", "cache"),
    [
        ({"HOME": "/home"}, "/home/.cache/huginn/ckpts"),
        ({"HOME": "/home", "AWS_LAMBDA_FUNCTION_NAME": "llm"}, "/tmp/huginn-ckpts"),
        ({"CKPT_CACHE": "mine", "AWS_LAMBDA_FUNCTION_NAME": "llm"}, "mine"),
    ],
)
def test_a_checkpoint_in_s3_has_a_place_here(environ, cache):
    """Among the user's caches; on AWS Lambda in the one folder that can be written there."""
    settings = Settings.from_env({"CKPT_PATH": "s3://bucket/models/raven/", **environ})
    assert settings.ckpt_path == S3Address("bucket", "models/raven")
    assert settings.ckpt_cache == Path(cache)


def test_without_a_home_there_is_no_cache():
    """As in some containers and functions; both uses do without."""
    settings = Settings.from_env({})
    assert settings.executables_path is None
    assert settings.jit_cache_path is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("METRICS_PORT", "65536"), ("METRICS_PORT", "-1"), ("METRICS_PORT", ""), ("METRICS_PORT", "9108.0"),
        ("METRICS_PORT", " 9108"), ("METRICS_PORT", "٩"), ("METRICS_PORT", "9" * 5000), ("MAX_QUEUE", "many"),
        ("MAX_QUEUE", "1_000"), ("MAX_ACTIVE", "0"), ("MAX_LOADED_MODELS", "0"), ("CKPT_PATH", ""), ("CKPT_PATH", " "),
        ("CKPT_PATH", "a\0b"), ("METRICS_HOST", ""),
        ("CACHE_PATH", ""), ("CKPT_CACHE", ""), ("CKPT_CACHE", "a\0b"),
        ("CKPT_PATH", "s3://"), ("CKPT_PATH", "s3://bucket"), ("CKPT_PATH", "s3://bucket/.."), ("CKPT_PATH", "s3://b/a"),
        ("CKPT_PATH", "s3://bucket/raven"), ("CHECKPOINT_DIGEST", ""), ("CHECKPOINT_DIGEST", "A" * 64),
        ("CHECKPOINT_DIGEST", "0" * 63), ("WATTS_PER_CPU", ""), ("WATTS_PER_CPU", "-1"), ("WATTS_PER_CPU", "nan"),
        ("WATTS_PER_CPU", "1001"), ("WATTS_PER_CPU", "٣"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_used_are_refused_by_name(name, value):
    """Nothing starts with a setting that was not understood."""
    with pytest.raises(SettingsError, match=f"^{name} is "):
        Settings.from_env({name: value})
