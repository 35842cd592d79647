"""Whose pages may ask a service that is for one machine alone."""

import pytest

from functions.backend.settings import Settings
from tests.host_names import OTHERS, OWN


@pytest.fixture
def health(backend_with, llm):
    """Give the status with which GET /livez is answered, by name, where people reach the service on `host`."""

    def ask(name, host="127.0.0.1", path="/livez", **more):
        with backend_with(Settings(llm_url=llm.stream_url, host=host, **more)) as client:
            return client.get(path, headers={"host": name})

    return ask


@pytest.mark.parametrize("name", OWN)
def test_this_machine_and_its_containers_may(health, name):
    """Addresses, localhost and names without a dot are nobody else's."""
    assert health(name).status_code == 200


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("path", ["/livez", "/v1/models", "/openapi.json", "/nowhere"])
def test_a_name_that_anybody_may_own_is_refused(health, name, path):
    """421 whatever it asks for, in words that say what to do."""
    refused = health(name, path=path)
    assert (refused.status_code, refused.json()["error"]["code"]) == (421, "misdirected_request")
    assert "HUGINN_HOST" in refused.json()["error"]["message"]
    assert refused.headers["x-request-id"]


@pytest.mark.parametrize("more", [{"host": "0.0.0.0"}, {"host": "evil.example"}, {"on_lambda": True}])
def test_what_is_published_is_asked_by_any_name(health, more):
    """Who may is then asked for a key."""
    more = {"auth": "on", **more}
    assert health("evil.example", **more).status_code == 200
