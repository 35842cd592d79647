"""Whose pages may ask a page that is for one machine alone."""

import pytest
from starlette.testclient import TestClient

from functions.frontend.app import build_app
from functions.frontend.settings import Settings
from tests.host_names import OTHERS, OWN

HERE = {"HUGINN_AUTH": "off", "HUGINN_HOST": "127.0.0.1"}
SECRET = "s" * 32


def get(environ, name, path="/livez"):
    with TestClient(build_app(Settings.from_env(environ)), follow_redirects=False) as client:
        return client.get(path, headers={"host": name})


@pytest.mark.parametrize("name", OWN)
def test_this_machine_and_its_containers_may(name):
    """Addresses, localhost and names without a dot are nobody else's."""
    assert get(HERE, name).status_code == 200


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("path", ["/", "/livez", "/api/llm/models", "/nowhere"])
def test_a_name_that_anybody_may_own_is_refused(name, path):
    """421 whatever it asks for, in words that say what to do."""
    refused = get(HERE, name, path)
    assert (refused.status_code, refused.json()["error"]["code"]) == (421, "misdirected_request")
    assert "HUGINN_HOST" in refused.json()["error"]["message"]
    assert refused.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("more", [{"HUGINN_HOST": "0.0.0.0"}, {"AWS_LAMBDA_FUNCTION_NAME": "huginn-frontend"}])
def test_what_is_published_is_asked_by_any_name(more):
    """Who may is then asked otherwise."""
    assert get(HERE | {"HUGINN_AUTH": "on", "SESSION_SECRET": SECRET} | more, "evil.example").status_code == 200


def test_nobody_is_sent_elsewhere():
    """A path with a slash too many is not there; what a client says of the host never comes back as an address."""
    answer = get(HERE, "localhost", "/status/")
    assert (answer.status_code, answer.headers.get("location")) == (404, None)
