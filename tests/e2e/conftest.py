"""A real browser on a real page over loopback; every page is watched for what it must never do."""

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.frontend.fake_backend import FakeBackend, run_fake_backend
from tests.frontend.loopback import serve_frontend

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# The browser itself must ask nothing of the network either.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# Not how long anything may take, but when a test that waits for nothing gives up: other work may fill the machine.
PATIENCE_MS = 30_000
expect.set_options(timeout=PATIENCE_MS)

OpenPage = Callable[..., Page]


# For one module: while Playwright's loop is in this thread, no other test can run one of its own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium, or HUGINN_CHROMIUM; without one the test is skipped, and says so."""
    path = os.environ.get("HUGINN_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} is on the PATH (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def backend() -> Iterator[FakeBackend]:
    with run_fake_backend() as running:
        yield running


@pytest.fixture
def site(backend: FakeBackend) -> Iterator[str]:
    """The address of the page."""
    with serve_frontend(backend.url) as address:
        yield address


@pytest.fixture
def open_page(browser: Browser, site: str) -> Iterator[OpenPage]:
    """Opens the page in a fresh profile: `open_page("/?lang=fr", color_scheme="dark")`.

    At the end no page may have asked for anything outside the site, broken its Content-Security-Policy, or thrown.
    """
    contexts = []
    faults: list[str] = []

    def watch_request(url: str, origin: str) -> None:
        if not url.startswith(f"{origin}/"):
            faults.append(f"asked for {url}")

    def watch_console(kind: str, text: str) -> None:
        # The browser itself reports every status from 400 on this way, and some tests mean them.
        if kind in {"error", "warning"} and not text.startswith("Failed to load resource"):
            faults.append(text)

    def open_page(path: str = "/", origin: str = site, init_script: str = "", **options: object) -> Page:
        context = browser.new_context(base_url=origin, **{"locale": "en-GB", **options})  # type: ignore[arg-type]
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        if init_script:
            context.add_init_script(init_script)
        page = context.new_page()
        page.on("request", lambda request: watch_request(request.url, origin))
        page.on("console", lambda message: watch_console(message.type, message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []
