"""What the Dockerfiles and `huginn serve` start waits for no head without end."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from local.tiers import TIERS, Tier
from tests.local.huginn_up import REPOSITORY, STARTS_WITHIN_S, STOPS_WITHIN_S, get, unused_ports
from tests.test_images import stages

# Runs a module as `python -m` does, with a second for a head.
PROGRAM = """
import runpy, sys
from functions.server import timed_http

timed_http.HEAD_WITHIN_S = 1.0
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
ENVIRON = {"HUGINN_AUTH": "off", "HUGINN_HOST": "127.0.0.1", "METRICS_PORT": "0"}


def by_image(tier: Tier, ports: dict[str, int]) -> list[str]:
    """The image's own command, but on a port of the loopback."""
    [command] = [line.removeprefix("CMD ") for line in stages(tier.name)[-1] if line.startswith("CMD ")]
    python, m, *command = json.loads(command)
    assert (python, m) == ("python", "-m")
    for option, value in (("--host", "127.0.0.1"), ("--port", str(ports[tier.listener]))):
        command[command.index(option) + 1] = value
    return command


def by_serve(tier: Tier, ports: dict[str, int]) -> list[str]:
    """`huginn serve`."""
    options = {"--api-port": "api", "--page-port": "page", "--llm-port": "llm", "--metrics-port": "metrics"}
    return ["local.cli", "serve", tier.name, *(part for o, name in options.items() for part in (o, str(ports[name])))]


@contextmanager
def started(command: list[str], port: int) -> Iterator[None]:
    """A process that answers."""
    environ = {**os.environ, **ENVIRON}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *command], cwd=REPOSITORY, env=environ)
    try:
        deadline = time.monotonic() + STARTS_WITHIN_S
        while True:
            assert process.poll() is None
            assert time.monotonic() < deadline
            try:
                assert get(port, "/livez")[0] == 200
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        yield
        process.terminate()
        process.wait(STOPS_WITHIN_S)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("how", [by_image, by_serve])
@pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.name)
def test_no_tier_waits_for_a_head_without_end(tier, how):
    """Half a one is answered 408, a silent connection is closed."""
    ports = unused_ports()
    with started(how(tier, ports), ports[tier.listener]):
        silent, half = (closing(socket.create_connection(("127.0.0.1", ports[tier.listener]), 20)) for _ in range(2))
        with silent as connection, half as other:
            other.sendall(b"GET /livez HTTP/1.1\r\n")
            with connection.makefile("rb") as nothing, other.makefile("rb") as answer:
                assert answer.read().startswith(b"HTTP/1.1 408 ")
                assert nothing.read() == b""
