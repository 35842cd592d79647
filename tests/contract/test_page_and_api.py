"""The real page before the real API: the API knows the page's readers, and the page reads the API's figures."""

from collections.abc import Iterator
from dataclasses import fields
from typing import get_type_hints

import httpx
import pytest

from functions.backend.app import build_app
from functions.backend.controllers.status import BackendStatus, StatusBody
from functions.backend.domain.llm_status import Histogram, LLMStatus
from functions.backend.settings import Settings
from functions.frontend.status_figures import StatusFigures
from functions.llm.controllers.request_id import _SANE as REQUEST_ID_OF_LLM
from local.logs.command import _REQUEST_ID as REQUEST_ID_OF_LOGS
from tests.frontend.fake_backend import STATUS
from tests.frontend.loopback import serve, serve_frontend
from tests.unused_ports import unused_address

SECRET, OLD = "a secret of at least 32 characters, this one", "and the one that has been before this one"
ASK = {"prompt": "a", "max_tokens": 1}


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    """An API that asks who is there; the model behind it is away, which it tells only those whom it lets in."""
    settings = Settings(llm_url=f"{unused_address()}/generate/stream", auth="on", session_secrets=(SECRET, OLD))
    with serve(build_app(settings)) as address:
        yield address


@pytest.mark.parametrize("secrets", [(SECRET,), (OLD, SECRET)], ids=["same secret", "page not yet on the new one"])
def test_the_api_lets_the_pages_readers_in(api, secrets):
    """Through the page's relay, by the cookie that the page gave; nobody else."""
    with (
        serve_frontend(api, session_secrets=secrets) as page,
        httpx.Client(base_url=page, timeout=30, trust_env=False) as reader,
    ):
        assert reader.post("/api/llm/generate", json=ASK).status_code == 401
        reader.get("/")
        answer = reader.post("/api/llm/generate", json=ASK)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "llm_unavailable")
        assert "x-ratelimit-limit-tokens" in answer.headers
        form = reader.post("/", data={"prompt": "a"})
        assert "The model service cannot be reached." in form.text


@pytest.mark.parametrize("given", ["Root=1-5/a+b@c~d:e.f_g=-", "r" * 128, "r" * 129, "é", "a b", "a,b", "a;b", "{}"])
def test_a_request_has_one_id_in_all_tiers(api, given):
    """Whatever is taken for one by a tier is by the next, and is what `huginn logs` can be asked for."""
    ids = {}
    with serve_frontend(api, session_secrets=(SECRET,)) as page:
        for address in (page, api):
            answer = httpx.get(
                f"{address}/livez", headers={"x-request-id": given.encode()}, timeout=30, trust_env=False
            )
            ids[address] = answer.headers["x-request-id"] == given
    model = REQUEST_ID_OF_LLM.fullmatch(given.encode()) is not None
    assert {*ids.values(), model, REQUEST_ID_OF_LOGS.fullmatch(given) is not None} == {ids[page]}
    assert ids[page] is (given in {"Root=1-5/a+b@c~d:e.f_g=-", "r" * 128})


def test_the_page_reads_the_apis_figures(api):
    """Also while there is no model; whoever loads the view has a session for its scripts."""
    with (
        serve_frontend(api, session_secrets=(SECRET,)) as page,
        httpx.Client(base_url=page, timeout=30, trust_env=False) as reader,
    ):
        assert reader.get("/api/status").status_code == 401
        assert "The model service does not answer." in reader.get("/status").text
        figures = StatusFigures.read(reader.get("/api/status").json())
        assert figures.model is None
        assert dict(figures.errors)["unauthenticated"] >= 1


def test_the_figures_that_the_pages_tests_take_are_the_apis():
    """The same names, and no others."""
    assert STATUS.keys() == get_type_hints(StatusBody).keys()
    assert STATUS["backend"].keys() == get_type_hints(BackendStatus).keys()
    assert list(STATUS["llm"]) == [field.name for field in fields(LLMStatus)]
    assert list(STATUS["llm"]["inter_token_s"]) == [field.name for field in fields(Histogram)]
