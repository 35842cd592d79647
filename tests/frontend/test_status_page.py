"""The status view as the server makes it: figures for everybody, and the scripts' first look."""

import json

import httpx
import pytest

from functions.frontend.app import build_app
from functions.frontend.settings import Settings
from tests.frontend.fake_backend import STATUS, as_error, as_json
from tests.frontend.loopback import serve, serve_frontend
from tests.frontend.test_pages import Reader
from tests.unused_ports import unused_address


def _figures(html: str) -> dict[str, str]:
    """Of each figure, by name, what stands there."""
    found = {}
    for piece in html.split('data-figure="')[1:]:
        name, _, rest = piece.partition('">')
        found[name] = rest.partition("</dd>")[0]
    return found


@pytest.mark.parametrize(
    ("language", "heading", "whose", "spared", "share"),
    [
        ("en", "What the model is doing", "model’s CPU time", "1,500 of 4,000", "30%"),
        ("fr", "Ce que fait le modèle", "temps CPU du modèle", "1\u202f500 sur 4\u202f000", "30 %"),
    ],
)
def test_the_figures_stand_in_the_page(client, language, heading, whose, spared, share):
    """Without a script: what has been since the start, in the reader's language, and it says so."""
    response = client.get("/status", params={"lang": language})
    page, figures = Reader(response.text), _figures(response.text)
    assert response.status_code == 200
    assert page.texts["question"] == heading
    # Whose it is: page and API are not in it.
    assert page.texts["cost-cpu"].startswith(whose)
    assert (figures["cost-cpu"], figures["cost-energy"]) == ("2 s", "15 J")
    assert (figures["cache-spared"], figures["cache-share"]) == (spared, share)
    assert (figures["first-p50"], figures["first-p95"]) == ("10 ms", "100 ms")
    assert figures["models"] == "fake-raven"
    assert figures["slots-busy"] in {"3 of 16", "3 sur 16"}
    assert page.texts["errors"].split() == ["queue_full", "3"]
    assert json.loads(page.texts["sample"]) == STATUS


def test_the_page_points_to_the_view_and_back(client):
    """In the language that is read now; the one that is open is marked."""
    for path, other in (("/", "/status"), ("/status", "/")):
        html = client.get(path, params={"lang": "fr"}).text
        assert f'<a href="{other}?lang=fr">' in html
        assert f'<a href="{path}?lang=fr" aria-current="page">' in html


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (as_json({**STATUS, "llm": None, "models": [], "instances": 0}), "The model service does not answer."),
        (as_error(503, "not_ready", "Loading."), "The model is still loading."),
        (as_json({"time": 1}), "The answer cannot be read."),
        (as_json([1], 500), "The answer cannot be read."),
        (as_error(404, "not_found", "nothing here"), "This service does not say what it is doing."),
    ],
)
def test_a_service_that_is_not_well_is_said_in_words(backend, client, answer, words):
    """The page comes all the same, with dashes where the figures would be."""
    backend.scripts["/api/status"] = answer
    response = client.get("/status")
    assert response.status_code == 200
    assert Reader(response.text).texts["state"].startswith(words)
    assert _figures(response.text)["first-p50"] == "–"


def test_a_backend_that_is_down_is_said_in_words():
    """As everywhere."""
    with serve_frontend(unused_address()) as url:
        response = httpx.get(f"{url}/status", timeout=30, trust_env=False)
    assert response.status_code == 200
    assert Reader(response.text).texts["state"].startswith("The API behind this page cannot be reached.")


def test_the_scripts_figures_are_relayed(backend, client):
    """As the API says them; only to be read."""
    assert client.get("/api/status").json() == STATUS
    assert backend.last.method == "GET"
    assert client.post("/api/status").status_code == 405


def test_where_there_is_no_view_nothing_points_to_it(backend):
    """Neither the view nor the figures, nor a link to them."""
    with (
        serve(build_app(Settings(backend.url, status_view=False))) as url,
        httpx.Client(timeout=30, trust_env=False) as client,
    ):
        assert [client.get(f"{url}{path}").status_code for path in ("/status", "/api/status")] == [404, 404]
        assert "/status" not in client.get(url).text
    assert backend.requests == []


def test_no_word_is_missing_from_the_view(client):
    """Neither Python nor JavaScript show through where a string should be."""
    for language in ("en", "fr"):
        main = Reader(client.get("/status", params={"lang": language}).text).texts["main"]
        assert not [odd for odd in ("built-in", "undefined", "{n}", "{watts}", "None", "Undefined") if odd in main]
