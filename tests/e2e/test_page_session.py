"""A reader's session in a browser: nobody notices it, but for a password and a quota."""

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from playwright.sync_api import expect

from functions.frontend.entrance import COOKIE
from tests.e2e.test_page import PHONE
from tests.e2e.typing_reader import begin
from tests.frontend.fake_backend import as_error, stream
from tests.frontend.loopback import serve_frontend

pytestmark = pytest.mark.browser

SECRETS = ("a secret of at least 32 characters, this one",)
OVER = as_error(401, "unauthenticated", "The page's session is over. Load the page again.")
WORDS = {"en": ("Password", "Come in", "That is not the password."), "fr": ("Mot de passe", "Entrer", "Ce n’est pas")}


@pytest.fixture
def site(backend) -> Iterator[str]:
    with serve_frontend(backend.url, session_secrets=SECRETS) as address:
        yield address


@pytest.fixture
def locked(backend) -> Iterator[str]:
    """The address of a page with a password."""
    with serve_frontend(backend.url, session_secrets=SECRETS, page_password="nevermore-nevermore") as address:
        yield address


def test_a_session_that_is_over_is_renewed_without_a_word(backend, open_page):
    """A computer that slept finds it so: the scripts renew it and ask again. No script ever sees the cookie."""
    page = open_page()
    assert page.evaluate("document.cookie") == ""
    backend.scripts["/api/llm/stream"] = OVER

    def renew(route) -> None:
        backend.scripts["/api/llm/stream"] = stream([" a", " raven"])
        route.continue_()

    page.route("**/session", renew)
    begin(page)
    expect(page.locator("#turns .text")).to_have_text("Once upon a midnight a raven")
    expect(page.locator("#alert")).to_be_hidden()
    assert backend.last.headers["cookie"].startswith(f"{COOKIE}=v1.")


def test_a_session_that_the_api_does_not_take_is_said_in_words(backend, open_page):
    """Asked twice, and not for ever."""
    backend.scripts["/api/llm/stream"] = OVER
    page = open_page()
    begin(page)
    expect(page.get_by_role("alert")).to_contain_text("This page’s session is over.")
    assert [request.path for request in backend.requests].count("/api/llm/stream") == 2


def test_an_open_page_renews_its_session(backend, open_page):
    """Before half of it is over, again and again."""
    page = open_page(init_script="const real = setInterval; window.setInterval = (f, ms) => real(f, ms / 4000);")
    with page.expect_response("**/session") as renewed:
        pass
    assert renewed.value.status == 200
    with page.expect_response("**/session"):
        pass


@pytest.mark.parametrize(
    ("language", "after", "words"),
    [
        ("en", "42", "Try again in 42 s."),
        ("fr", "42", "Réessayez dans 42 s."),
        ("en", "7261", "Try again in 2 h 2 min."),
    ],
)
def test_a_quota_that_is_used_up_says_when_to_try_again(backend, open_page, language, after, words):
    """In words, with a button to do so."""
    script = as_error(429, "quota_exceeded", "Enough.", retryable=True)
    backend.scripts["/api/llm/stream"] = replace(script, headers={**script.headers, "retry-after": after})
    page = open_page(f"/?lang={language}")
    begin(page)
    expect(page.get_by_role("alert")).to_contain_text(words)
    expect(page.locator("#again")).to_be_visible()


@pytest.mark.parametrize(("language", "scripts"), [("en", True), ("fr", False)], ids=["scripts", "no scripts"])
def test_the_password_is_asked_for_once(backend, open_page, locked, language, scripts):
    """By keyboard: a wrong one is said in words, the right one leads to the page, which then works."""
    label, enter, wrong = WORDS[language]
    page = open_page(f"/?lang={language}", origin=locked, java_script_enabled=scripts)
    field = page.get_by_label(label, exact=True)
    expect(field).to_be_focused()
    field.fill("evermore")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text(wrong)
    field.fill("nevermore-nevermore")
    page.get_by_role("button", name=enter).click()
    expect(page.locator("#prompt")).to_be_visible()
    expect(page).to_have_url(re.compile(rf"/\?lang={language}$"))
    begin(page)
    expect(page.locator("#turns .continuation")).to_contain_text("a raven")
    assert backend.last.headers["cookie"].startswith(f"{COOKIE}=v1.") or scripts
    page.reload()
    expect(page.locator("#prompt")).to_be_visible()


def test_who_came_for_the_status_gets_there(open_page, locked):
    """The password is given at the door of the place itself."""
    page = open_page("/status", origin=locked)
    page.get_by_label("Password").fill("nevermore-nevermore")
    page.get_by_role("button", name="Come in").click()
    expect(page.locator("#tiles")).to_be_visible()
    expect(page).to_have_url(f"{locked}/status")


def test_a_link_from_elsewhere_asks_nobody_again_who_has_come_in(open_page, locked):
    """As one in a mail: no site's page, so that the browser takes it for another's."""
    page = open_page(origin=locked)
    page.get_by_label("Password").fill("nevermore-nevermore")
    page.get_by_role("button", name="Come in").click()
    expect(page.locator("#prompt")).to_be_visible()
    page.goto("about:blank")
    page.set_content(f'<a href="{locked}/">There</a>')
    page.get_by_text("There").click()
    expect(page.locator("#prompt")).to_be_visible()


def test_a_page_whose_session_is_gone_asks_for_the_password_in_words(backend, open_page, locked):
    """What was typed stays; another tab can let the reader in again."""
    page = open_page(origin=locked)
    page.get_by_label("Password").fill("nevermore-nevermore")
    page.get_by_role("button", name="Come in").click()
    page.locator("#prompt").fill("Once upon a midnight")
    page.context.clear_cookies()
    backend.scripts["/api/llm/stream"] = OVER
    page.locator("#go").click()
    expect(page.get_by_role("alert")).to_contain_text("This page asks for its password again.")
    expect(page.locator("#prompt")).to_have_value("Once upon a midnight")


def test_the_door_fits_a_phone(open_page, locked):
    """As every page does."""
    page = open_page("/?lang=fr", origin=locked, **PHONE)
    expect(page.locator("#enter")).to_be_in_viewport(ratio=1)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    heights = page.locator("#enter, #password").evaluate_all(
        "(all) => all.map((it) => it.getBoundingClientRect().height)"
    )
    assert min(heights) >= 43.9
