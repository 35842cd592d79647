"""What the environment says, read once."""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from functions.backend.domain.quota import Quota
from functions.backend.telemetry.log_lines import FORMATS, LEVELS
from functions.backend.telemetry.tracing import TracingError, traces_wanted

STREAM_PATH = "/generate/stream"

_TEXTS = {
    "LLM_URL": "llm_url",
    "METRICS_HOST": "metrics_host",
    "LOG_FORMAT": "log_format",
    "LOG_LEVEL": "log_level",
    "KEY_STORE": "key_store",
}
_QUOTAS = {
    "SESSION_TOKENS_PER_MINUTE": "session_tokens_per_minute",
    "SESSION_TOKENS_PER_DAY": "session_tokens_per_day",
    "SESSION_CONCURRENCY": "session_concurrency",
    "ALL_SESSIONS_TOKENS_PER_MINUTE": "all_sessions_tokens_per_minute",
    "ALL_SESSIONS_TOKENS_PER_DAY": "all_sessions_tokens_per_day",
    "ALL_SESSIONS_CONCURRENCY": "all_sessions_concurrency",
}
_COUNTS = _QUOTAS | {
    "MAX_PROMPT_CHARS": "max_prompt_chars",
    "MAX_PROMPT_TOKENS": "max_prompt_tokens",
    "METRICS_PORT": "metrics_port",
    "LLM_MEMORY_MB": "llm_memory_mb",
}
_SECONDS = {
    "LLM_TIMEOUT_S": "llm_timeout_s",
    "LLM_CONNECT_TIMEOUT_S": "llm_connect_timeout_s",
    "READER_TIMEOUT_S": "reader_timeout_s",
    "REQUEST_TIMEOUT_S": "request_timeout_s",
}
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")
_MIN_SECRET_LENGTH = 32
_ORIGIN = re.compile(r"\*|https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9A-Fa-f:]+\](:[0-9]{1,5})?")

Number = TypeVar("Number", int, float)


class SettingsError(ValueError):
    """A variable that is not understood: its name, what it is, what it must be."""


@dataclass(frozen=True)
class Settings:
    """The backend's settings; the defaults are those of the compose network."""

    llm_url: str = "http://llm:8008/generate/stream"
    max_prompt_chars: int = 8000  # of the page and /api/llm
    llm_timeout_s: float = 60.0  # the longest silence between two events
    llm_connect_timeout_s: float = 5.0
    llm_auth: str = "none"  # or "sigv4", where the model is a Lambda function that answers by IAM alone
    aws_region: str = ""  # of that function
    on_lambda: bool = False  # each answer may be another process's, and none can be scraped
    metrics_port: int = 0  # where Prometheus finds the metrics; 0 turns that off
    metrics_host: str = "0.0.0.0"  # noqa: S104 - Prometheus scrapes from another container
    log_format: str = "json"  # or "text", for a terminal
    log_level: str = "info"
    traces: bool = False  # whether requests are sent as spans by OTLP
    auth: str = "off"  # or "on", which is what an environment that is silent gets: see from_env
    host: str = "127.0.0.1"  # the address at which people reach this; "" is not known
    session_secrets: tuple[str, ...] = ()  # any of them may have signed the page's session
    # What a reader of the page may use: in a minute the longest prompt and the longest text, or some hundred
    # answers of the usual length; two at the same time.
    session_tokens_per_minute: int = 40_000
    session_tokens_per_day: int = 200_000
    session_concurrency: int = 2
    # And what all of them together may: who loads the page anew has a new session. None is no limit.
    all_sessions_tokens_per_minute: int | None = None
    all_sessions_tokens_per_day: int | None = None
    all_sessions_concurrency: int | None = None
    key_store: str = ""  # sqlite:PATH or dynamodb:TABLE; without one there are no keys
    llm_memory_mb: int = 3008  # of the model's function, for what a request costs
    reader_timeout_s: float = 30.0  # how long a client may take nothing of its answer
    max_prompt_tokens: int = 32_768  # the model's own limit, told to both
    request_timeout_s: float = 900.0  # the longest that any request may take; it may ask for less
    cors_origins: tuple[str, ...] = ()  # of whose pages scripts may call this; "*" is everybody's

    def __post_init__(self) -> None:
        fault = _fault_of_stream_url(self.llm_url)
        if fault:
            raise SettingsError(f"LLM_URL is {self.llm_url!r}; {fault}.")
        _expect_within("MAX_PROMPT_CHARS", self.max_prompt_chars, 1, 100_000)
        _expect_within("MAX_PROMPT_TOKENS", self.max_prompt_tokens, 1, 1_000_000)
        _expect_within("LLM_TIMEOUT_S", self.llm_timeout_s, 0.001, 3600)
        _expect_within("LLM_CONNECT_TIMEOUT_S", self.llm_connect_timeout_s, 0.001, 3600)
        _expect_within("READER_TIMEOUT_S", self.reader_timeout_s, 0.001, 3600)
        _expect_within("REQUEST_TIMEOUT_S", self.request_timeout_s, 0.001, 86_400)
        for origin in self.cors_origins:
            if not _ORIGIN.fullmatch(origin):
                raise SettingsError(
                    f"CORS_ORIGINS names {origin!r}; it must be *, or origins such as https://example.org, with commas "
                    "between and no path."
                )
        _expect_within("METRICS_PORT", self.metrics_port, 0, 65535)
        if not self.metrics_host.strip() or "\0" in self.metrics_host:
            raise SettingsError(
                f"METRICS_HOST is {self.metrics_host!r}; it must be an address of this machine, or unset."
            )
        if self.llm_auth not in {"none", "sigv4"}:
            raise SettingsError(f"LLM_AUTH is {self.llm_auth!r}; it must be none or sigv4.")
        if self.llm_auth == "sigv4" and not _REGION.fullmatch(self.aws_region):
            raise SettingsError(f"AWS_REGION is {self.aws_region!r}; LLM_AUTH=sigv4 needs one, such as eu-west-1.")
        _expect_one_of("LOG_FORMAT", self.log_format, FORMATS)
        _expect_one_of("LOG_LEVEL", self.log_level, LEVELS)
        _expect_within("LLM_MEMORY_MB", self.llm_memory_mb, 128, 1_000_000)
        self._check_who_may()

    def _check_who_may(self) -> None:
        _expect_one_of("HUGINN_AUTH", self.auth, ("on", "off"))
        if self.auth == "off" and not is_loopback(self.host):
            raise SettingsError(
                f"HUGINN_AUTH is 'off', which is for this machine alone, and HUGINN_HOST is {self.host!r}. "
                "Set HUGINN_AUTH=on: who asks then needs a key (`huginn keys new`; in compose, local/compose.keys.yml) "
                "or a session of the page (SESSION_SECRET, `openssl rand -hex 32` makes one). Or publish on 127.0.0.1, "
                "and say so (in compose, HUGINN_BIND=127.0.0.1)."
            )
        for secret in self.session_secrets:
            if len(secret) < _MIN_SECRET_LENGTH:
                # Not quoted: this ends in a log.
                raise SettingsError(
                    f"SESSION_SECRET is of {len(secret)} characters; it must be one secret, or two with a comma "
                    f"between, of at least {_MIN_SECRET_LENGTH} each. `openssl rand -hex 32` makes one."
                )
        if len(self.session_secrets) > 2:
            raise SettingsError(f"SESSION_SECRET is {len(self.session_secrets)} secrets; it must be one or two.")
        for name, field in _QUOTAS.items():
            value = getattr(self, field)
            if value is not None:
                _expect_within(name, value, 1, 999_999_999)
        if not re.fullmatch(r"(sqlite:.+|dynamodb:[A-Za-z0-9_.-]{3,255})?", self.key_store):
            raise SettingsError(f"KEY_STORE is {self.key_store!r}; it must be sqlite:PATH or dynamodb:TABLE.")
        if self.key_store.startswith("dynamodb:") and not _REGION.fullmatch(self.aws_region):
            raise SettingsError(f"AWS_REGION is {self.aws_region!r}; KEY_STORE=dynamodb: needs one, such as eu-west-1.")

    @property
    def session_quota(self) -> Quota:
        """What each session of the page may use."""
        return Quota(self.session_tokens_per_minute, self.session_tokens_per_day, self.session_concurrency)

    @property
    def all_sessions_quota(self) -> Quota | None:
        """What all sessions of the page may use together; None where nobody limits that."""
        limits = self.all_sessions_tokens_per_minute, self.all_sessions_tokens_per_day, self.all_sessions_concurrency
        return None if limits == (None, None, None) else Quota(*limits)

    @property
    def signs(self) -> bool:
        """Whether requests to the model are signed."""
        return self.llm_auth == "sigv4"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Give the settings that the environment asks for; the defaults stand where it is silent, but for one thing.

        Everybody is asked who they are, unless it says that they are not, and that this is for one machine alone.

        Raises:
            SettingsError: names the variable.
        """
        found: dict[str, Any] = {field: environ[name] for name, field in _TEXTS.items() if name in environ}
        found |= {field: _number(name, environ, int) for name, field in _COUNTS.items() if name in environ}
        found |= {field: _number(name, environ, float) for name, field in _SECONDS.items() if name in environ}
        found |= {"auth": environ.get("HUGINN_AUTH", "on"), "host": environ.get("HUGINN_HOST", "")}
        found |= {"session_secrets": _secrets(environ), "aws_region": environ.get("AWS_REGION", "")}
        found |= {"traces": _traces(environ)}
        found |= {"cors_origins": tuple(filter(None, map(str.strip, environ.get("CORS_ORIGINS", "").split(","))))}
        settings = replace(cls(), **found)
        if "LLM_AUTH" in environ:
            settings = replace(settings, llm_auth=environ["LLM_AUTH"])
        if environ.get("AWS_LAMBDA_FUNCTION_NAME"):
            settings = replace(settings, on_lambda=True)
        return settings


def is_loopback(host: str) -> bool:
    """Say whether nobody but this machine reaches that address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _secrets(environ: Mapping[str, str]) -> tuple[str, ...]:
    text = environ.get("SESSION_SECRET", "")
    return tuple(text.split(",")) if text else ()


def _traces(environ: Mapping[str, str]) -> bool:
    try:
        return traces_wanted(environ)
    except TracingError as error:
        raise SettingsError(str(error)) from error


def _number(name: str, environ: Mapping[str, str], kind: type[Number]) -> Number:
    text = environ[name]
    # Python itself would also read "1_000", " 7 " and "nan".
    if not re.fullmatch(r"[0-9]{1,9}" if kind is int else r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise SettingsError(f"{name} is {text!r}; it must be a {'whole number' if kind is int else 'number'}.")
    return kind(text)


def _expect_within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise SettingsError(f"{name} is {value}; it must be between {low} and {high}.")


def _expect_one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise SettingsError(f"{name} is {value!r}; it must be one of {', '.join(known)}.")


def _fault_of_stream_url(url: str) -> str | None:
    """Say what is wrong with an address of the llm function's stream, None when nothing is."""
    if any(character.isspace() or not character.isprintable() for character in url):
        return "it must not hold spaces or control characters"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"it is not a URL ({error})"
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        return "it must begin with http:// or https://, a host and, where it is not the usual one, a port"
    if parts.username is not None or parts.password is not None:
        return "it must not hold a user name or a password"
    if not url.endswith(STREAM_PATH) or parts.query or parts.fragment:
        return f"it must be the address of the stream, which ends with {STREAM_PATH}"
    return None
