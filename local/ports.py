"""Where the tiers listen on this machine, and whether they can."""

import argparse
import errno
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields

from local.errors import CommandError


@dataclass(frozen=True)
class Listener:
    """One thing that listens: its name, and what moves it."""

    name: str
    default: int
    variable: str

    @property
    def option(self) -> str:
        """The flag of `huginn up` that moves it."""
        return f"--{self.name}-port"


LISTENERS = (
    Listener("page", 8081, "HUGINN_PAGE_PORT"),
    Listener("api", 8082, "HUGINN_API_PORT"),
    Listener("llm", 8008, "HUGINN_LLM_PORT"),
    Listener("metrics", 9108, "METRICS_PORT"),
)


@dataclass(frozen=True)
class Ports:
    """A port for every listener, all different."""

    page: int
    api: int
    llm: int
    metrics: int

    def __post_init__(self) -> None:
        owners: dict[int, Listener] = {}
        for listener in LISTENERS:
            port = self.of(listener)
            if not 1 <= port <= 65535:
                raise CommandError(
                    f"the port of {listener.name} is {port}, expected 1 to 65535",
                    f"choose another: {listener.option} {listener.default}, or {listener.variable}={listener.default}",
                    exit_code=2,
                )
            if port in owners:
                raise CommandError(
                    f"{owners[port].name} and {listener.name} are both to listen on port {port}",
                    f"move one: {listener.option} N, or {listener.variable}=N",
                    exit_code=2,
                )
            owners[port] = listener

    def of(self, listener: Listener) -> int:
        """The port that `listener` has."""
        port: int = getattr(self, listener.name)
        return port


def add_port_options(parser: argparse.ArgumentParser) -> None:
    """Give `parser` one flag for each listener."""
    for listener in LISTENERS:
        parser.add_argument(
            listener.option,
            type=int,
            metavar="N",
            help=f"where {listener.name} listens (default: ${listener.variable}, else {listener.default})",
        )


def choose_ports(args: argparse.Namespace, environ: Mapping[str, str]) -> Ports:
    """Give the ports that the flags name, else the environment, else the defaults."""
    given: dict[str, int | None] = {field.name: getattr(args, f"{field.name}_port", None) for field in fields(Ports)}
    chosen = {
        listener.name: port if (port := given[listener.name]) is not None else _from_environ(listener, environ)
        for listener in LISTENERS
    }
    return Ports(**chosen)


def refuse_taken_port(host: str, port: int, listener: Listener) -> None:
    """Raise CommandError if nothing could listen on `port` now, naming what moves it."""
    move = f"{listener.option} {port + 100}, or {listener.variable}={port + 100}"
    try:
        # The first address is the one that uvicorn binds first.
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise CommandError(
            f"the host {host!r} is not known ({error.strerror})", "name another: --host 127.0.0.1", exit_code=4
        ) from error
    with socket.socket(family, kind, protocol) as probe:
        if os.name == "posix":
            # As the servers do: a port whose last connection has just ended is free. (On Windows it means otherwise.)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                what, remedy = f"port {port}, where {listener.name} is to listen, is taken", f"move it: {move}"
            elif error.errno == errno.EACCES:
                what, remedy = f"port {port}, for {listener.name}, is not allowed to this user", f"move it: {move}"
            else:
                what = f"{listener.name} cannot listen on {host}, port {port}: {error.strerror}"
                remedy = f"name another host, --host 127.0.0.1, or move it: {move}"
            raise CommandError(what, remedy, exit_code=4) from error


def _from_environ(listener: Listener, environ: Mapping[str, str]) -> int:
    text = environ.get(listener.variable)
    if text is None:
        return listener.default
    try:
        return int(text)
    except ValueError as error:
        raise CommandError(
            f"{listener.variable} is {text!r}, expected a port from 1 to 65535",
            f"set it to a number, or unset it: the default is {listener.default}",
            exit_code=2,
        ) from error
