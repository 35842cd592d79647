"""The environment is read once, and what is not understood is named."""

import pytest

from functions.backend.domain.quota import Quota
from functions.backend.settings import Settings, SettingsError


def test_an_empty_environment_gives_the_predecessor_s_address():
    """The compose network works without a word."""
    assert Settings.from_env({"PATH": "/bin"}) == Settings(
        "http://llm:8008/generate/stream", 8000, 60.0, 5.0, auth="on", host=""
    )


def test_every_variable_is_read():
    """Each reaches its field."""
    environ = {
        "LLM_URL": "https://[::1]:9/prefix/generate/stream",
        "MAX_PROMPT_CHARS": "7",
        "LLM_TIMEOUT_S": "1.5",
        "LLM_CONNECT_TIMEOUT_S": "0.5",
        "AWS_LAMBDA_FUNCTION_NAME": "backend",
        "METRICS_PORT": "9108",
        "METRICS_HOST": "127.0.0.1",
        "HUGINN_AUTH": "off",
        "HUGINN_HOST": "::1",
        "SESSION_SECRET": f"{'a' * 32},{'b' * 40}",
        "SESSION_TOKENS_PER_MINUTE": "1",
        "SESSION_TOKENS_PER_DAY": "2",
        "SESSION_CONCURRENCY": "3",
        "ALL_SESSIONS_TOKENS_PER_MINUTE": "4",
        "ALL_SESSIONS_TOKENS_PER_DAY": "5",
        "ALL_SESSIONS_CONCURRENCY": "6",
        "KEY_STORE": "sqlite:/keys/keys.sqlite",
        "LLM_MEMORY_MB": "4096",
        "MAX_PROMPT_TOKENS": "8",
    }
    assert Settings.from_env(environ) == Settings(
        "https://[::1]:9/prefix/generate/stream",
        7,
        1.5,
        0.5,
        on_lambda=True,
        metrics_port=9108,
        metrics_host="127.0.0.1",
        auth="off",
        host="::1",
        session_secrets=("a" * 32, "b" * 40),
        session_tokens_per_minute=1,
        session_tokens_per_day=2,
        session_concurrency=3,
        all_sessions_tokens_per_minute=4,
        all_sessions_tokens_per_day=5,
        all_sessions_concurrency=6,
        key_store="sqlite:/keys/keys.sqlite",
        llm_memory_mb=4096,
        max_prompt_tokens=8,
    )


def test_what_all_sessions_share_has_no_limits_but_those_that_are_set():
    """Nobody's page closes because its readers are many, unless that is wanted."""
    assert Settings.from_env({}).all_sessions_quota is None
    assert Settings.from_env({"ALL_SESSIONS_TOKENS_PER_DAY": "5"}).all_sessions_quota == Quota(None, 5, None)


def test_requests_are_signed_where_that_is_asked_for():
    """With the region that AWS Lambda names; without one nothing could be signed."""
    assert not Settings.from_env({"AWS_REGION": "eu-west-1"}).signs
    settings = Settings.from_env({"LLM_AUTH": "sigv4", "AWS_REGION": "us-gov-west-1"})
    assert (settings.signs, settings.aws_region) == (True, "us-gov-west-1")
    for environ in ({"LLM_AUTH": "sigv4"}, {"LLM_AUTH": "sigv4", "AWS_REGION": "Ireland"}):
        with pytest.raises(SettingsError, match="AWS_REGION is"):
            Settings.from_env(environ)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_nobody_is_asked_on_this_machine_alone(host):
    """Where the address is one that others cannot reach."""
    assert Settings.from_env({"HUGINN_AUTH": "off", "HUGINN_HOST": host}).auth == "off"


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "192.168.1.7", "example.org", "127.0.0.1.example.org"])
def test_elsewhere_everybody_is_asked(host):
    """An address that others may reach, or that is not known, and no question asked is refused at the start.

    In compose too, where an unset HUGINN_AUTH is `off`: what is told to do helps there.
    """
    with pytest.raises(SettingsError, match=r"^HUGINN_AUTH is 'off'.* Set HUGINN_AUTH=on.*HUGINN_BIND=127\.0\.0\.1"):
        Settings.from_env({"HUGINN_AUTH": "off", "HUGINN_HOST": host})


def test_a_secret_is_not_quoted():
    """What is wrong with one ends in a log."""
    with pytest.raises(SettingsError) as error:
        Settings.from_env({"SESSION_SECRET": "hunter2"})
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("METRICS_PORT", "65536"),
        ("METRICS_PORT", "-1"),
        ("METRICS_HOST", ""),
        ("LLM_AUTH", "basic"),
        ("LLM_AUTH", ""),
        ("LLM_URL", ""),
        ("LLM_URL", "llm:8008/generate/stream"),
        ("LLM_URL", "ftp://llm/generate/stream"),
        ("LLM_URL", "http:///generate/stream"),
        ("LLM_URL", "http://llm:99999/generate/stream"),
        ("LLM_URL", "http://llm:port/generate/stream"),
        ("LLM_URL", "http://[llm/generate/stream"),
        ("LLM_URL", "http://llm:8008"),
        ("LLM_URL", "http://llm:8008/generate/stream/"),
        ("LLM_URL", "http://llm:8008/?path=/generate/stream"),
        ("LLM_URL", "http://user:secret@llm:8008/generate/stream"),
        ("LLM_URL", " http://llm:8008/generate/stream"),
        ("LLM_URL", "http://llm:8008/generate/stream\n"),
        ("MAX_PROMPT_CHARS", "0"),
        ("MAX_PROMPT_TOKENS", "0"),
        ("MAX_PROMPT_TOKENS", "1000001"),
        ("MAX_PROMPT_CHARS", "many"),
        ("MAX_PROMPT_CHARS", "8e3"),
        ("MAX_PROMPT_CHARS", "1_000"),
        ("MAX_PROMPT_CHARS", " 7"),
        ("MAX_PROMPT_CHARS", "7\n"),
        ("MAX_PROMPT_CHARS", "9" * 5000),
        ("LLM_TIMEOUT_S", "0"),
        ("LLM_TIMEOUT_S", "nan"),
        ("LLM_TIMEOUT_S", "inf"),
        ("LLM_CONNECT_TIMEOUT_S", "-1"),
        ("LLM_CONNECT_TIMEOUT_S", ""),
        ("HUGINN_AUTH", "no"),
        ("SESSION_SECRET", "short"),
        ("SESSION_SECRET", "a" * 32 + ","),
        ("SESSION_SECRET", ",".join(["a" * 32] * 3)),
        ("SESSION_CONCURRENCY", "0"),
        ("SESSION_TOKENS_PER_MINUTE", "many"),
        ("ALL_SESSIONS_TOKENS_PER_DAY", "0"),
        ("ALL_SESSIONS_CONCURRENCY", ""),
        ("KEY_STORE", "redis:6379"),
        ("KEY_STORE", "sqlite:"),
        ("KEY_STORE", "dynamodb:a b c"),
        ("LLM_MEMORY_MB", "1"),
    ],
)
def test_a_malformed_value_stops_the_start(name, value):
    """The message begins with the variable's name."""
    with pytest.raises(SettingsError, match=f"^{name} is "):
        Settings.from_env({name: value})
