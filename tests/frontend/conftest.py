"""A frontend in front of a scripted backend, both over real loopback connections."""

from collections.abc import Iterator

import httpx
import pytest

from tests.frontend.fake_backend import PATIENCE_S, FakeBackend, run_fake_backend
from tests.frontend.loopback import serve_frontend


@pytest.fixture
def backend() -> Iterator[FakeBackend]:
    with run_fake_backend() as running:
        yield running


@pytest.fixture
def client(backend: FakeBackend) -> Iterator[httpx.Client]:
    with (
        serve_frontend(backend.url) as address,
        httpx.Client(base_url=address, timeout=PATIENCE_S, trust_env=False) as client,
    ):
        yield client
