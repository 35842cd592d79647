"""The llm function's settings, read once from the environment."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from functions.llm.checkpoints.s3_address import S3Address, S3AddressError, is_s3_address
from functions.llm.telemetry.log_lines import FORMATS, LEVELS
from functions.llm.telemetry.tracing import TracingError, asks_for, traces_wanted


class SettingsError(ValueError):
    """A variable has a value that cannot be used; the message names it."""


@dataclass(frozen=True)
class Settings:
    """What the environment decides.

    Args:
        ckpt_path: CKPT_PATH, the checkpoint folder that is served first; those beside it are served by name. Or an
            address in S3, and then it is served alone.
        checkpoint_digest: CHECKPOINT_DIGEST, the only weights that are served first: the digest of that checkpoint's
            config.json; None for whatever lies there.
        ckpt_cache: CKPT_CACHE, where checkpoints of S3 are kept; None if nothing can be.
        metrics_port: METRICS_PORT, where Prometheus finds the metrics; 0 turns that off.
        metrics_host: METRICS_HOST, the address that port listens on.
        max_queue: MAX_QUEUE, how many requests may wait.
        max_active: MAX_ACTIVE, how many are answered at the same time.
        max_loaded_models: MAX_LOADED_MODELS, how many models stay in memory.
        prompt_cache_bytes: PROMPT_CACHE_MB in bytes, what the states of prompts read before may take; 0 keeps none.
        max_prompt_tokens: MAX_PROMPT_TOKENS, how long a prompt may be.
        request_timeout_s: REQUEST_TIMEOUT_S, how long a request may take, waiting included.
        reader_timeout_s: READER_TIMEOUT_S, how long a client may leave its tokens unread.
        cache_path: CACHE_PATH, where compiled programs are kept; None if nothing can be.
        lambda_name: AWS_LAMBDA_FUNCTION_NAME, under which the metrics go into the log; None where this is no Lambda.
        otlp: OTEL_EXPORTER_OTLP_ENDPOINT or its like, whether the metrics go out by OTLP; its library reads where.
        otlp_interval_ms: OTEL_METRIC_EXPORT_INTERVAL, how often.
        log_format: LOG_FORMAT, json for machines or text for a terminal.
        log_level: LOG_LEVEL, from which on lines are written.
        traces: OTEL_EXPORTER_OTLP_ENDPOINT or its like, whether requests are sent as spans by OTLP.
        snap_start: AWS_LAMBDA_INITIALIZATION_TYPE, whether Lambda makes a snapshot of the process once it has started.
        own_names_alone: HUGINN_HOST, whether this is reached on loopback, and so by no name of somebody else's.
        watts_per_cpu: WATTS_PER_CPU, what a busy CPU is taken to draw where energy is estimated.
    """

    ckpt_path: Path | S3Address = Path("ckpts/muninn-char")
    metrics_port: int = 9108
    metrics_host: str = "0.0.0.0"  # noqa: S104 - Prometheus scrapes from another container
    max_queue: int = 64
    max_active: int = 16
    max_loaded_models: int = 2
    prompt_cache_bytes: int = 64 << 20
    request_timeout_s: int = 600
    max_prompt_tokens: int = 32_768
    cache_path: Path | None = None
    ckpt_cache: Path | None = None
    lambda_name: str | None = None
    otlp: bool = False
    otlp_interval_ms: int = 60_000
    snap_start: bool = False
    checkpoint_digest: str | None = None
    # A virtual CPU of AWS at full load, the average over its processors' SPECpower results: Cloud Carbon Footprint,
    # https://www.cloudcarbonfootprint.org/docs/methodology/#compute. Memory, network and cooling are not in it.
    watts_per_cpu: float = 3.5
    log_format: str = "json"
    log_level: str = "info"
    traces: bool = False
    reader_timeout_s: int = 30
    own_names_alone: bool = False

    def __post_init__(self) -> None:
        """Refuse an address in S3 without a place for what it brings."""
        if isinstance(self.ckpt_path, S3Address) and self.ckpt_cache is None:
            raise SettingsError(f"CKPT_PATH is '{self.ckpt_path}' and there is no HOME; set CKPT_CACHE to a folder.")

    @property
    def executables_path(self) -> Path | None:
        """Where `huginn compile` puts programs that were compiled ahead."""
        return self.cache_path and self.cache_path / "executables"

    @property
    def jit_cache_path(self) -> Path | None:
        """Where XLA keeps what it had to compile while serving."""
        return self.cache_path and self.cache_path / "jit"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Return the settings that ``environ`` asks for; SettingsError names a variable that cannot be used."""
        path = environ.get("CKPT_PATH", str(cls.ckpt_path))
        host = environ.get("METRICS_HOST", cls.metrics_host)
        cache = environ.get("CACHE_PATH", _user_cache(environ))
        given = {"CKPT_PATH": path, "METRICS_HOST": host, "CACHE_PATH": cache, "CKPT_CACHE": environ.get("CKPT_CACHE")}
        for name, value in given.items():
            if value is not None and (not value.strip() or "\0" in value):
                raise SettingsError(f"{name} is {value!r}; leave it unset for the default, or give it a value.")
        return cls(
            ckpt_path=_checkpoint(path),
            metrics_port=_whole_number(environ, "METRICS_PORT", cls.metrics_port, 0, 65535),
            metrics_host=host,
            max_queue=_whole_number(environ, "MAX_QUEUE", cls.max_queue, 0, 1_000_000),
            max_active=_whole_number(environ, "MAX_ACTIVE", cls.max_active, 1, 10_000),
            max_loaded_models=_whole_number(environ, "MAX_LOADED_MODELS", cls.max_loaded_models, 1, 1000),
            prompt_cache_bytes=_whole_number(environ, "PROMPT_CACHE_MB", cls.prompt_cache_bytes >> 20, 0, 1_000_000)
            << 20,
            request_timeout_s=_whole_number(environ, "REQUEST_TIMEOUT_S", cls.request_timeout_s, 1, 86_400),
            reader_timeout_s=_whole_number(environ, "READER_TIMEOUT_S", cls.reader_timeout_s, 1, 86_400),
            max_prompt_tokens=_whole_number(environ, "MAX_PROMPT_TOKENS", cls.max_prompt_tokens, 1, 1_000_000),
            cache_path=None if cache is None else Path(cache),
            ckpt_cache=checkpoint_cache(environ),
            lambda_name=environ.get("AWS_LAMBDA_FUNCTION_NAME") or None,
            otlp=asks_for(environ, "METRICS") is not None,
            otlp_interval_ms=_whole_number(environ, "OTEL_METRIC_EXPORT_INTERVAL", cls.otlp_interval_ms, 1, 86_400_000),
            snap_start=environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start",
            checkpoint_digest=_digest(environ),
            own_names_alone=_is_loopback(environ.get("HUGINN_HOST", "")),
            watts_per_cpu=_watts(environ, "WATTS_PER_CPU", cls.watts_per_cpu),
            log_format=_one_of(environ, "LOG_FORMAT", cls.log_format, FORMATS),
            log_level=_one_of(environ, "LOG_LEVEL", cls.log_level, LEVELS),
            traces=_traces(environ),
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def checkpoint_cache(environ: Mapping[str, str]) -> Path | None:
    """Return where checkpoints of S3 are kept: CKPT_CACHE, else /tmp on AWS Lambda, else among the user's caches."""
    if "CKPT_CACHE" in environ:
        return Path(environ["CKPT_CACHE"])
    if "AWS_LAMBDA_FUNCTION_NAME" in environ:
        # The only folder that can be written there, and nobody else's.
        return Path("/tmp/huginn-ckpts")  # noqa: S108
    cache = _user_cache(environ)
    return None if cache is None else Path(cache) / "ckpts"


def _checkpoint(text: str) -> Path | S3Address:
    try:
        return S3Address.parse(text) if is_s3_address(text) else Path(text)
    except S3AddressError as error:
        raise SettingsError(f"CKPT_PATH is no checkpoint: {error}.") from error


def _digest(environ: Mapping[str, str]) -> str | None:
    text = environ.get("CHECKPOINT_DIGEST")
    # Left empty by mistake, it must not mean that anything is served.
    if text is not None and not (len(text) == 64 and set(text) <= set("0123456789abcdef")):
        raise SettingsError(f"CHECKPOINT_DIGEST is {text!r}; it must be the digest of config.json, or unset.")
    return text


def _watts(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, str(default))
    if not (re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,4})?", text) and 0 <= float(text) <= 1000):
        raise SettingsError(f"{name} is {text!r}; it must be a number of watts from 0 to 1000, such as {default}.")
    return float(text)


def _user_cache(environ: Mapping[str, str]) -> str | None:
    # By the XDG base directory specification: what is not an absolute path counts as unset.
    if environ.get("XDG_CACHE_HOME", "").startswith("/"):
        return f"{environ['XDG_CACHE_HOME']}/huginn"
    return f"{environ['HOME']}/.cache/huginn" if environ.get("HOME", "").startswith("/") else None


def _traces(environ: Mapping[str, str]) -> bool:
    try:
        return traces_wanted(environ)
    except TracingError as error:
        raise SettingsError(str(error)) from error


def _one_of(environ: Mapping[str, str], name: str, default: str, known: tuple[str, ...]) -> str:
    text = environ.get(name, default)
    if text not in known:
        raise SettingsError(f"{name} is {text!r}; it must be one of {', '.join(known)}.")
    return text


def _whole_number(environ: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = environ.get(name, str(default))
    # int() would also take "1_000", " 7 " and digits of other scripts.
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and low <= int(text) <= high):
        raise SettingsError(f"{name} is {text!r}; it must be a whole number from {low} to {high}.")
    return int(text)
