"""What the frontend reads from its environment, once."""

import ipaddress
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from functions.frontend.telemetry.log_lines import FORMATS, LEVELS
from functions.frontend.telemetry.tracing import TracingError, traces_wanted

PREFIX = "BACKEND_"
MIN_SECRET_LENGTH = 32
# Twelve random letters are one of 10^17: half of them take a thousand instances with two guesses a second each
# (password.py) 700,000 years. What people think up is guessed sooner, but not by a list of the commonest passwords.
MIN_PASSWORD_LENGTH = 12

# Container engines describe a linked service called "backend" by variables of these names; they are not ours to judge.
_LINK_VARIABLES = re.compile(r"BACKEND_(SERVICE_|PORT(_|$)|ENV_|NAME$)")


class SettingsError(ValueError):
    """A variable that is unknown or not understood; the message names it."""


@dataclass(frozen=True)
class Settings:
    """Where the backend is, and how long it may take.

    Args:
        backend_url: its origin, with a path in front of `/api` where it has one; no slash at the end.
        backend_timeout_s: the longest silence of the backend within one answer. Longer than the backend's own limit
            on the model, so that the one who knows more speaks first.
        backend_connect_timeout_s: how long making a connection may take.
        metrics_port: where Prometheus finds the metrics; 0 turns that off. On AWS Lambda nobody could scrape them.
        metrics_host: the address that port listens on.
        log_format: LOG_FORMAT, json for machines or text for a terminal.
        log_level: LOG_LEVEL, from which on lines are written.
        traces: OTEL_EXPORTER_OTLP_ENDPOINT or its like, whether requests are sent as spans by OTLP.
        reader_timeout_s: how long a browser may take nothing of its answer. Longer than the backend's limit, who can
            say better what ended.
        status_view: whether there is a view of what the service is doing. On AWS Lambda there is none, because each
            instance there knows of itself alone.
        session_secrets: SESSION_SECRET, one or two: the first signs the sessions of the page, all are accepted. Without
            one there are no sessions: for a backend that asks nobody who they are (HUGINN_AUTH=off).
        page_password: PAGE_PASSWORD, asked for before there is a session; "" lets everybody in.
        own_names_alone: HUGINN_HOST, whether people reach this on loopback, and so by no name of somebody else's.
        cookie_secure: COOKIE_SECURE, whether the session's cookie is for https alone also where a proxy does not say
            that the request came by it.
    """

    backend_url: str = "http://backend:8082"
    backend_timeout_s: float = 300.0
    backend_connect_timeout_s: float = 5.0
    metrics_port: int = 0
    metrics_host: str = "0.0.0.0"  # noqa: S104 - Prometheus scrapes from another container
    log_format: str = "json"
    log_level: str = "info"
    traces: bool = False
    status_view: bool = True
    # Not shown: what is shown ends in a log.
    session_secrets: tuple[str, ...] = field(default=(), repr=False)
    page_password: str = field(default="", repr=False)
    cookie_secure: bool = False
    reader_timeout_s: float = 60.0
    own_names_alone: bool = False

    def __post_init__(self) -> None:
        """Refuse, by the variable's name, what cannot work."""
        _check_url("BACKEND_URL", self.backend_url)
        _check_positive("BACKEND_TIMEOUT_S", self.backend_timeout_s)
        _check_positive("BACKEND_CONNECT_TIMEOUT_S", self.backend_connect_timeout_s)
        _check_positive("READER_TIMEOUT_S", self.reader_timeout_s)
        if not self.metrics_host.strip() or "\0" in self.metrics_host:
            raise SettingsError(f"METRICS_HOST is {self.metrics_host!r}; expected an address of this machine, or unset")
        _check_one_of("LOG_FORMAT", self.log_format, FORMATS)
        _check_one_of("LOG_LEVEL", self.log_level, LEVELS)
        _check_secrets(self.session_secrets)
        if self.page_password and len(self.page_password) < MIN_PASSWORD_LENGTH:
            found = len(self.page_password)
            raise SettingsError(
                f"PAGE_PASSWORD has {found} characters; expected at least {MIN_PASSWORD_LENGTH} "
                "(`openssl rand -base64 12` makes one that nobody guesses)"
            )
        if self.page_password and not self.session_secrets:
            raise SettingsError(
                "PAGE_PASSWORD is set, but without sessions it would keep nobody out: "
                "set HUGINN_AUTH=on, and SESSION_SECRET (`openssl rand -hex 32` makes one)"
            )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """The settings that the environment gives; what it does not mention has its default.

        Raises:
            SettingsError: a variable beginning with BACKEND_ is not known, or a value is not understood.
        """
        known = {f"{PREFIX}{name}" for name in ("URL", "TIMEOUT_S", "CONNECT_TIMEOUT_S")}
        for name in sorted(environ):
            if name.startswith(PREFIX) and name not in known and not _LINK_VARIABLES.match(name):
                raise SettingsError(f"{name} is not a setting of the frontend; it knows {', '.join(sorted(known))}")
        return cls(
            backend_url=environ.get("BACKEND_URL", cls.backend_url).removesuffix("/"),
            backend_timeout_s=_seconds(environ, "BACKEND_TIMEOUT_S", cls.backend_timeout_s),
            backend_connect_timeout_s=_seconds(environ, "BACKEND_CONNECT_TIMEOUT_S", cls.backend_connect_timeout_s),
            metrics_port=0
            if "AWS_LAMBDA_FUNCTION_NAME" in environ
            else _port(environ, "METRICS_PORT", cls.metrics_port),
            metrics_host=environ.get("METRICS_HOST", cls.metrics_host),
            log_format=environ.get("LOG_FORMAT", cls.log_format),
            log_level=environ.get("LOG_LEVEL", cls.log_level),
            traces=_traces(environ),
            status_view="AWS_LAMBDA_FUNCTION_NAME" not in environ,
            session_secrets=_session_secrets(environ),
            page_password=environ.get("PAGE_PASSWORD", ""),
            cookie_secure=_switch(environ, "COOKIE_SECURE"),
            reader_timeout_s=_seconds(environ, "READER_TIMEOUT_S", cls.reader_timeout_s),
            # On Lambda the host is AWS's name for the function, also where that is emulated.
            own_names_alone=_is_loopback(environ.get("HUGINN_HOST", "")) and "AWS_LAMBDA_FUNCTION_NAME" not in environ,
        )


def _session_secrets(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The secrets, where somebody asks who is there; whether they are good is checked with the rest."""
    auth, text = environ.get("HUGINN_AUTH", ""), environ.get("SESSION_SECRET", "")
    _check_one_of("HUGINN_AUTH", auth, ("on", "off", ""))
    host = environ.get("HUGINN_HOST", "")
    if auth == "off":
        if not _is_loopback(host):
            raise SettingsError(
                f"HUGINN_AUTH is 'off', which is for this machine alone, and HUGINN_HOST is {host!r}; "
                "set HUGINN_AUTH=on, and SESSION_SECRET (`openssl rand -hex 32` makes one), both here and for the "
                "backend; or publish on 127.0.0.1, and say so (in compose, HUGINN_BIND=127.0.0.1)"
            )
        return ()
    if auth == "on" and not text:
        raise SettingsError(
            "HUGINN_AUTH is 'on', and SESSION_SECRET is not set; expected what signs the page's sessions, the same as "
            "the backend has (`openssl rand -hex 32` makes one)"
        )
    return tuple(text.split(",")) if text else ()


def _check_secrets(secrets: tuple[str, ...]) -> None:
    if len(secrets) > 2:
        raise SettingsError(f"SESSION_SECRET is {len(secrets)} secrets; expected one, or two with a comma between")
    for secret in secrets:
        if len(secret) < MIN_SECRET_LENGTH:
            # Not quoted: this ends in a log.
            raise SettingsError(
                f"SESSION_SECRET is of {len(secret)} characters; expected one secret, or two with a comma between, "
                f"of at least {MIN_SECRET_LENGTH} each (`openssl rand -hex 32` makes one)"
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _switch(environ: Mapping[str, str], name: str) -> bool:
    _check_one_of(name, environ.get(name) or "off", ("on", "off"))
    return environ.get(name) == "on"


def _traces(environ: Mapping[str, str]) -> bool:
    try:
        return traces_wanted(environ)
    except TracingError as error:
        raise SettingsError(str(error)) from error


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name)
    if text is None:
        return default
    try:
        return float(text)
    except ValueError:
        raise SettingsError(f"{name} is {text!r}; expected a number of seconds, such as {default:g}") from None


def _port(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, str(default))
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise SettingsError(f"{name} is {text!r}; expected the number of a port, or 0 for none")
    return int(text)


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise SettingsError(f"{name} is {value}; expected a number of seconds above 0")


def _check_one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise SettingsError(f"{name} is {value!r}; expected one of {', '.join(known)}")


def _check_url(name: str, url: str) -> None:
    expected = "expected an address such as http://backend:8082"
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number of a port
    except ValueError as error:
        raise SettingsError(f"{name} is {url!r} ({error}); {expected}") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or any(c.isspace() for c in url):
        raise SettingsError(f"{name} is {url!r}; {expected}")
    if parts.query or parts.fragment or parts.username is not None:
        raise SettingsError(f"{name} is {url!r}; it may have no user, query or fragment; {expected}")
