"""The page writes the golden request and reads the golden answers of the API; tests/e2e has the scripts do so."""

import json
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest

from functions.backend.controllers.errors import STATUSES
from functions.frontend.app import HERE
from functions.frontend.form import FORM_TYPE, NAMES, parse_form, request_from_form
from functions.frontend.languages import load_languages
from tests.frontend.fake_backend import Script, run_fake_backend
from tests.frontend.loopback import serve_frontend

GOLDEN = Path(__file__).parent / "golden"
ERRORS = sorted(GOLDEN.glob("error_*.json"))
# Neither the form nor the scripts can ask so wrongly.
NEVER_CAUSED_BY_THE_PAGE = {
    "invalid_json", "method_not_allowed", "not_acceptable", "not_found", "unsupported_media_type"
}  # fmt: skip


def load(name: str) -> dict:
    return json.loads((GOLDEN / name).read_bytes())


def test_a_filled_form_is_the_golden_request():
    """Every control under its name and in its type. The backend reads the same file."""
    asked = load("generate_request_page.json")
    assert asked.keys() == NAMES
    typed = {name: str(value) for name, value in asked.items()} | {"stop": "\\n\\n\nFIN"}
    body = urlencode({name: text.replace("\n", "\r\n") for name, text in typed.items()}).encode()
    assert request_from_form(parse_form(body, FORM_TYPE)) == asked


def answer_to_the_form(script: Script) -> httpx.Response:
    """The page that answers the form where the API answers so."""
    with run_fake_backend() as backend, serve_frontend(backend.url) as url:
        backend.scripts["/api/llm/generate"] = script
        return httpx.post(url, data={"prompt": "a"}, timeout=30, trust_env=False)


def test_a_whole_answer_is_shown():
    """Text, model, count and seed."""
    golden = GOLDEN / "generate_response.json"
    response = answer_to_the_form(Script(200, {"content-type": "application/json"}, [golden.read_bytes()]))
    assert response.status_code == 200
    for shown in (" Raù\n</span>", "<span>muninn-char</span>", "<span>4 tokens</span>", "<span>seed 42</span>"):
        assert shown in response.text


def test_an_error_is_shown():
    """With its status, in the page's words and in the API's own."""
    status, golden = load("statuses.json")["model_not_found"], GOLDEN / "error_model_not_found.json"
    response = answer_to_the_form(Script(status, {"content-type": "application/json"}, [golden.read_bytes()]))
    assert response.status_code == status
    assert "There is no such model any more." in response.text


@pytest.mark.parametrize("language", ["en", "fr"])
def test_there_are_words_for_every_error_that_the_api_can_send(language):
    """Nobody is told that the page does not know."""
    codes = {path.stem.removeprefix("error_") for path in ERRORS}
    codes |= {kind.code for kind in STATUSES if hasattr(kind, "code")}
    assert len(codes) > 12
    words = load_languages(HERE / "strings")[language].strings["errors"]
    assert codes - NEVER_CAUSED_BY_THE_PAGE - words.keys() == set()
