"""Every error is an answer by the one table, in the one form."""

import pytest

from functions.backend.controllers.errors import STATUSES
from functions.backend.domain.errors import BackendError, LLMError, LLMRefused, OutOfTime
from functions.backend.settings import Settings


def kinds_of(kind):
    """Give a class and all that inherit from it."""
    return {kind}.union(*(kinds_of(child) for child in kind.__subclasses__()))


def test_every_error_has_a_status():
    """An error that nobody thought of here would be a 500."""
    roots_never_raised = {BackendError, LLMError, OutOfTime}
    carries_its_own = {LLMRefused}
    assert set(STATUSES) == kinds_of(BackendError) - roots_never_raised - carries_its_own


def test_a_path_that_is_not_there(backend):
    """404 as JSON, where the paths are listed, and no redirection to guess at."""
    for path in ["/nowhere", "/api/llm/stream/"]:
        response = backend.post(path, json={})
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "not_found"
        assert response.headers["x-request-id"]
        # A 404 without a word on it may be stored.
        assert response.headers["cache-control"] == "no-store"
    assert backend.get("/openapi.json").status_code == 200


def test_a_method_that_is_not_there(backend):
    """405 as JSON, with the methods that are."""
    response = backend.get("/api/llm/stream")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert response.json()["error"]["code"] == "method_not_allowed"
    assert "POST" in response.json()["error"]["message"]


class BrokenGateway:
    """Has a fault that nobody expected."""

    async def stream(self, generation, request_id, client="", timeout_s=None):
        raise ZeroDivisionError("a secret of the code")
        yield

    async def models(self, request_id):
        raise ZeroDivisionError("a secret of the code")

    async def ready(self, request_id):
        raise ZeroDivisionError("a secret of the code")


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/llm/stream"), ("POST", "/api/llm/generate"), ("GET", "/api/llm/models"), ("GET", "/readyz")],
)
def test_a_fault_of_our_own(backend_with, caplog, method, path):
    """500 says where to look and nothing of what is inside; the log has the same request id."""
    with backend_with(Settings(), BrokenGateway()) as client:
        json = {"prompt": "a"} if method == "POST" else None
        response = client.request(method, path, json=json, headers={"x-request-id": "find-me"})
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal"
    assert "find-me" in response.json()["error"]["message"]
    assert "secret" not in response.text
    assert response.headers["x-request-id"] == "find-me"
    assert "find-me" in caplog.text
    assert "a secret of the code" in caplog.text
