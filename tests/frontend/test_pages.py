"""The page without JavaScript: what the form sends is answered by a whole page."""

import json
from html.parser import HTMLParser

import httpx
import pytest

from functions.frontend.form import DEFAULTS
from tests.frontend.fake_backend import as_error, as_json
from tests.frontend.loopback import serve_frontend
from tests.unused_ports import unused_address


class Reader(HTMLParser):
    """What stands in the elements of a page, by id or by class."""

    VOID = frozenset({"meta", "link", "input", "circle", "path"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: dict[str, str] = {}
        self.values: dict[str, str] = {}
        self.attributes: dict[str, dict[str, str | None]] = {}
        self.scripts: list[dict[str, str | None]] = []
        self._open: list[list[str]] = []
        self.feed(html)
        self.close()
        assert not self._open, "an element is not closed"

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        names = [name for name in (named.get("id"), *(named.get("class") or "").split(), tag) if name]
        if tag == "template":
            names.append("template")
        for name in names:
            self.attributes.setdefault(name, named)
        if tag == "input" and named.get("name"):
            self.values[named["name"]] = named.get("value") or ""
        if tag == "option" and "selected" in named:
            self.values["model"] = named["value"]
        if tag == "script":
            self.scripts.append(named)
        if tag not in self.VOID:
            self._open.append(names)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert tag in self._open.pop()

    def handle_data(self, data):
        if any("template" in names for names in self._open):
            return
        for names in self._open:
            for name in names:
                self.texts[name] = self.texts.get(name, "") + data


def _post(client: httpx.Client, language: str = "en", **fields: str) -> httpx.Response:
    return client.post("/", params={"lang": language}, data={**DEFAULTS, **fields})


def test_the_page_comes_in_the_readers_language(client):
    """By header and by address; caches are told what it depends on."""
    for headers, address, tag, button in [
        ({}, "/", "en", "Continue the text"),
        ({"accept-language": "fr-FR"}, "/", "fr", "Poursuivre le texte"),
        ({"accept-language": "fr-FR"}, "/?lang=en", "en", "Continue the text"),
    ]:
        response = client.get(address, headers=headers)
        page = Reader(response.text)
        assert page.attributes["html"]["lang"] == response.headers["content-language"] == tag
        assert page.texts["go"] == button
        assert page.attributes["generate"]["action"] == f"/?lang={tag}"
        assert response.headers["vary"] == "accept-language"


def test_no_script_stands_in_the_page(client):
    """The policy would not run one; the strings are data."""
    page = Reader(client.get("/").text)
    for script in page.scripts:
        assert script.get("src", "").startswith("/static/") or script["type"] == "application/json"
    assert json.loads(page.texts["strings"])["go"] == "Continue the text"


def test_the_form_is_answered_with_the_whole_text(backend, client):
    """Prompt and continuation as one text, escaped, with its facts; the form keeps everything that was typed."""
    typed = {"prompt": " ROMEO:\nO <i>\n", "temperature": "0.5", "seed": "7", "stop": "END", "model": "crow"}
    response = _post(client, **typed)
    page = Reader(response.text)
    assert response.status_code == 200
    assert backend.last.path == "/api/llm/generate"
    assert backend.last.json()["prompt"] == " ROMEO:\nO <i>\n"
    assert backend.last.json()["temperature"] == 0.5
    # The API trims prompts, and the page shows the text that the model saw.
    assert page.texts["text"] == "ROMEO:\nO <i> a raven <b>&amp; a crow</b>"
    assert page.texts["beginning"] == "ROMEO:\nO <i>"
    for fact in ("fake-raven", "5 tokens", "limit reached", "seed 9007199254740993"):
        assert fact in page.texts["figures"]
    assert page.texts["prompt"].removeprefix("\n") == " ROMEO:\nO <i>\n"
    assert {name: page.values[name] for name in ("temperature", "seed", "model")} == {
        "temperature": "0.5", "seed": "7", "model": "crow"
    }  # fmt: skip
    assert page.texts["stop-strings"].removeprefix("\n") == "END"
    assert "hidden" in page.attributes["alert"]
    assert response.headers["cache-control"] == "no-store"


def test_the_scripts_find_the_answer_as_they_keep_it(client):
    """A browser whose scripts came too late for the form still shows the text among the others."""
    page = Reader(_post(client, prompt="it's").text)
    turn = json.loads(page.attributes["turn"]["data-turn"])
    assert turn == {
        "prompt": "it's", "text": " a raven <b>&amp; a crow</b>", "model": "fake-raven", "count": 5,
        "perSecond": None, "firstMs": None, "end": "length", "seed": "9007199254740993",
    }  # fmt: skip


def test_a_prompt_that_begins_with_a_line_end_is_kept(client):
    """HTML drops the first line end of a textarea, so that there must be one more."""
    assert Reader(_post(client, prompt="\n\na").text).texts["prompt"] == "\n\n\na"


@pytest.mark.parametrize(
    ("language", "script", "words"),
    [
        ("en", as_error(503, "llm_unavailable", "No model at <http://llm>."), "The model service cannot be reached."),
        ("fr", as_error(503, "llm_unavailable", "No model at <http://llm>."), "Le service du modèle est injoignable."),
        ("en", as_error(422, "invalid_request", "Too hot.", field="temperature"), "“Temperature” was not accepted."),
        ("en", as_error(422, "invalid_request", "Odd.", field="stop.0"), "“Stop at” was not accepted."),
        ("en", as_error(422, "invalid_request", "Odd.", field="logit_bias"), "A value was not accepted."),
        ("en", as_error(418, "teapot", "Short and stout."), "Something went wrong"),
        ("en", as_json({"oops": 1}), "The answer cannot be read."),
        ("en", as_json([], 500), "The answer cannot be read."),
    ],
)
def test_an_error_is_said_in_words_and_nothing_typed_is_lost(backend, client, language, script, words):
    """In the reader's language, with the server's own words beside it, and with the status for those who count."""
    backend.scripts["/api/llm/generate"] = script
    response = _post(client, language, prompt="ROMEO:", temperature="1.5")
    page = Reader(response.text)
    assert response.status_code == (script.status if "error" in script.chunks[0].decode() else 502)
    assert page.texts["alert-words"].startswith(words)
    assert "hidden" not in page.attributes["alert"]
    assert page.texts["prompt"].removeprefix("\n") == "ROMEO:"
    assert page.values["temperature"] == "1.5"


def test_a_backend_that_is_down_is_said_in_words():
    """A page, not a bare 502."""
    with serve_frontend(unused_address()) as url, httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        response = _post(client, "fr", prompt="ROMEO:")
    page = Reader(response.text)
    assert response.status_code == 502
    assert page.texts["alert-words"].startswith("L’API derrière cette page est injoignable.")
    assert page.texts["prompt"].removeprefix("\n") == "ROMEO:"


def test_a_form_that_cannot_be_read_is_answered_with_a_page(backend, client):
    """Bytes, strange fields, too much of it: the page comes back and says so; the backend is not asked."""
    form = {"content-type": "application/x-www-form-urlencoded"}
    for body, headers, status in [
        (b"prompt=%ff", form, 400),
        (b"prompt=a&evil=b", form, 400),
        (b"{}", {"content-type": "application/json"}, 415),
        (b"prompt=" + b"x" * 1_000_000, form, 413),
    ]:
        response = client.post("/", content=body, headers=headers)
        assert response.status_code == status
        assert "hidden" not in Reader(response.text).attributes["alert"]
    assert backend.requests == []


@pytest.mark.parametrize(
    ("site", "status"), [("same-origin", 200), ("none", 200), ("cross-site", 403), ("same-site", 403)]
)
def test_a_form_on_another_sites_page_asks_for_nothing(backend, client, site, status):
    """The browser says where it came from; what it held is not shown as if the reader had typed it."""
    response = client.post("/", data={"prompt": "planted"}, headers={"sec-fetch-site": site})
    assert response.status_code == status
    assert len(backend.requests) == (status == 200)
    assert ("planted" in response.text) == (status == 200)


def test_head_is_answered_without_a_body(client):
    """Monitors ask this way."""
    response = client.head("/")
    assert (response.status_code, response.content) == (200, b"")


def test_no_word_is_missing_from_the_page(client):
    """Neither Python nor JavaScript show through where a string should be."""
    for language in ("en", "fr"):
        for html in (client.get("/", params={"lang": language}).text, _post(client, language, prompt="a").text):
            assert not [
                odd
                for odd in ("built-in", "undefined", "{n}", "None", "Undefined")
                if odd in Reader(html).texts["main"]
            ]
