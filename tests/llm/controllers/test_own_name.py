"""Whose pages may ask a model that is for one machine alone."""

import asyncio

import httpx
import pytest

from functions.llm.app import build_app
from functions.llm.settings import Settings
from tests.host_names import OTHERS, OWN


async def get(host, name, path="/livez"):
    app = build_app(Settings.from_env({"HUGINN_HOST": host, "HOME": "/nowhere"}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://llm") as client:
        return await client.get(path, headers={"host": name})


@pytest.mark.parametrize("name", OWN)
def test_this_machine_and_its_containers_may(name):
    """Addresses, localhost and names without a dot are nobody else's."""
    assert asyncio.run(get("127.0.0.1", name)).status_code == 200


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("path", ["/livez", "/models", "/nowhere"])
def test_a_name_that_anybody_may_own_is_refused(name, path):
    """421 whatever it asks for."""
    refused = asyncio.run(get("::1", name, path))
    assert (refused.status_code, refused.json()["error"]["code"]) == (421, "misdirected_request")
    assert refused.headers["x-request-id"]


@pytest.mark.parametrize("host", ["", "0.0.0.0"])
def test_elsewhere_any_name_is_good(host):
    """AWS has names of its own, and asks who is there before."""
    assert asyncio.run(get(host, "abc.lambda-url.eu-west-1.on.aws")).status_code == 200
