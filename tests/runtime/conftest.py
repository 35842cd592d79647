"""Functions under the emulator."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import boto3
import httpx
import pytest
from botocore.config import Config

from local.emulator import Emulator

EMULATED = Path(__file__).parent / "emulated"

Run = Callable[..., AbstractContextManager[Emulator]]


@pytest.fixture
def run() -> Run:
    """Runs an ASGI app of `emulated/asgi_app.py` by our runtime: `run("app", {"VARIABLE": "value"}, timeout_s=3)`."""

    @contextmanager
    def start(app: str = "app", environment: dict[str, str] | None = None, **options) -> Iterator[Emulator]:
        command = [sys.executable, "-m", "functions.runtime", f"tests.runtime.emulated.asgi_app.{app}"]
        with Emulator(command, environment, **options) as emulator:
            yield emulator

    return start


@pytest.fixture
def run_plain() -> Run:
    """Runs a handler of `emulated/plain_handlers.py` by AWS's own Python client."""

    @contextmanager
    def start(handler: str, **options) -> Iterator[Emulator]:
        command = [sys.executable, "-m", "awslambdaric", f"plain_handlers.{handler}"]
        with Emulator(command, {"PYTHONPATH": str(EMULATED)}, task_root=EMULATED, **options) as emulator:
            yield emulator

    return start


@pytest.fixture(scope="session")
def http() -> Iterator[httpx.Client]:
    """A client that follows nothing and asks no proxy."""
    with httpx.Client(trust_env=False, timeout=30) as client:
        yield client


@pytest.fixture
def lambda_client() -> Iterator[Callable[[Emulator], object]]:
    """Makes boto3's client of an emulator, which asks once."""
    clients = []

    def connect(emulator: Emulator):
        client = boto3.client(
            "lambda",
            endpoint_url=emulator.url,
            region_name="eu-west-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
            config=Config(retries={"total_max_attempts": 1}),
        )
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close()
