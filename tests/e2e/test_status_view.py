"""The status view in a browser: figures of the last minutes, drawings of them, and nobody is left out."""

import random
import re
from copy import deepcopy
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from functions.frontend.status_figures import quantile
from tests.e2e.test_page import LANGUAGES, PHONE, luminance
from tests.e2e.typing_reader import wait_until
from tests.frontend.fake_backend import STATUS, FakeBackend, as_error, as_json
from tests.frontend.loopback import serve_frontend
from tests.unused_ports import unused_address

pytestmark = pytest.mark.browser


def _figure(page: Page, name: str) -> Any:
    return page.locator(f'[data-figure="{name}"]')


def _later(seconds: float, tokens: int = 0, cpu_s: float = 0.0, **counts: Any) -> dict[str, Any]:
    """The status so many seconds after the first one, with so many tokens more; `counts` are llm's as they then are."""
    body = deepcopy(STATUS)
    body["time"] += seconds
    body["llm"]["tokens_generated"] += tokens
    body["llm"]["cpu_seconds"] += cpu_s
    body["llm"].update(counts)
    return body


def _say(backend: FakeBackend, page: Page, body: dict[str, Any]) -> None:
    """Let this be the status, and the page look at once, as it does when it is seen again."""
    backend.scripts["/api/status"] = as_json(body)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def test_figures_are_the_differences_of_two_looks(backend, open_page):
    """100 tokens in 2 s with 0.3 CPU seconds; the slow requests of long ago are in no figure of the last minutes."""
    page = open_page("/status")
    expect(page.get_by_role("status")).to_have_text("Live.")
    # Before there is a difference, there is what has been since the start.
    expect(_figure(page, "first-p99")).to_have_text("820 ms")
    tile = page.locator('[data-tile="first"]')
    expect(tile.locator("[data-scope]")).to_have_text("since the start")
    quick = {**STATUS["llm"]["time_to_first_token_s"], "counts": [60, 105, 110, 110]}
    _say(
        backend,
        page,
        _later(2, 100, 0.3, active=5, queue_depth=0, time_to_first_token_s=quick, cache_hits=39, cache_misses=71),
    )
    expect(_figure(page, "rate-now")).to_have_text("50")
    expect(_figure(page, "cost-cpu")).to_have_text("3 s")
    expect(_figure(page, "cost-energy")).to_have_text("22.5 J")
    expect(_figure(page, "first-p99")).to_have_text("9.9 ms")
    expect(tile.locator("[data-scope]")).to_have_text("last 2 s")
    expect(_figure(page, "slots-busy")).to_have_text("5 of 16")
    expect(_figure(page, "cache-share")).to_have_text("90%")
    # Nothing new between tokens: what has been since the start says more than a dash.
    expect(page.locator('[data-tile="between"] [data-scope]')).to_have_text("since the start")
    expect(page.locator('[data-drawing="rate"] path.line')).to_have_count(1)
    expect(page.locator('[data-drawing="first"] path.line')).to_have_count(3)
    label = "Tokens per second, drawn over the last 5 minutes: from 50 to 50."
    expect(page.get_by_role("img", name=label)).to_be_visible()


@pytest.mark.parametrize("before", [-12_000, 500_000], ids=["fewer", "more"])
def test_counts_of_another_epoch_are_not_compared(backend, open_page, before):
    """They may be smaller than before or much larger: the drawings begin anew, too."""
    page = open_page("/status")
    _say(backend, page, _later(2, 100))
    expect(_figure(page, "rate-now")).to_have_text("50")
    _say(backend, page, {**_later(4, before + 10), "epoch": "5f3c-1"})
    expect(_figure(page, "rate-now")).to_have_text("–")
    _say(backend, page, {**_later(6, before + 70), "epoch": "5f3c-1"})
    expect(_figure(page, "rate-now")).to_have_text("30")
    expect(_figure(page, "rate-most")).to_have_text("30")


def test_errors_are_told_by_their_kind(backend, open_page):
    """The new ones first, and how many of them are new."""
    page = open_page("/status")
    rows = page.locator("#errors li")
    expect(rows).to_have_text([re.compile(r"queue_full\s+3$")])
    body = _later(2)
    body["backend"]["errors"] = {"queue_full": 3, "llm_timeout": 2}
    _say(backend, page, body)
    expect(rows).to_have_text([re.compile(r"llm_timeout\s+2 \(\+2\)$"), re.compile(r"queue_full\s+3$")])
    body["time"] += 2
    body["backend"]["errors"] = {}
    _say(backend, page, body)
    expect(page.locator("#no-errors")).to_be_visible()
    expect(rows).to_have_count(0)


def test_a_service_that_is_away_is_said_and_waited_for(backend, open_page):
    """Once, in words, with the last figures greyed; when it is back, so is the view."""
    page = open_page("/status")
    for answer, words in [
        (as_json({**STATUS, "llm": None, "models": [], "instances": 0}), "The model service does not answer."),
        (as_error(404, "not_found", "nothing here"), "This service does not say what it is doing."),
        (as_error(500, "internal", "Oh."), "The server failed."),
    ]:
        expect(page.get_by_role("status")).to_have_text("Live.")
        backend.scripts["/api/status"] = answer
        # Without being seen anew: it looks by itself.
        expect(page.get_by_role("status")).to_contain_text(words)
        expect(page.locator("body")).to_have_class(re.compile("stale"))
        _say(backend, page, _later(20, 100))
        expect(page.get_by_role("status")).to_have_text("Live.")
        expect(page.locator("body")).not_to_have_class(re.compile("stale"))


def test_a_view_of_nothing_still_says_why(open_page):
    """The backend is down from the beginning."""
    with serve_frontend(unused_address()) as origin:
        page = open_page("/status?lang=fr", origin=origin)
        expect(page.get_by_role("status")).to_contain_text("L’API derrière cette page est injoignable.")
        expect(_figure(page, "first-p50")).to_have_text("–")


def test_the_view_can_be_paused(backend, open_page):
    """Nothing moves and nothing is asked until the reader goes on."""
    page = open_page("/status")
    expect(page.get_by_role("status")).to_have_text("Live.")
    page.get_by_role("button", name="Pause").press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Paused.")
    page.wait_for_timeout(100)
    asked = len(backend.requests)
    page.wait_for_timeout(2500)
    assert len(backend.requests) == asked
    backend.scripts["/api/status"] = as_json(_later(2, 100))
    page.get_by_role("button", name="Go on").press("Enter")
    expect(_figure(page, "rate-now")).to_have_text("50")


def test_the_drawings_outlive_a_look_at_the_other_page(backend, open_page):
    """Who writes a text and comes back sees what it has done."""
    page = open_page("/status")
    _say(backend, page, _later(2, 100))
    expect(_figure(page, "rate-most")).to_have_text("50")
    page.get_by_role("link", name="Write").click()
    expect(page.locator("#prompt")).to_be_visible()
    backend.scripts["/api/status"] = as_json(_later(12, 300))
    page.get_by_role("link", name="Status").click()
    expect(_figure(page, "rate-most")).to_have_text("50")
    expect(_figure(page, "rate-mean")).to_have_text("25")


def test_a_moment_of_the_past_can_be_pointed_at(backend, open_page):
    """All drawings mark it, and the figures are those of it."""
    page = open_page("/status")
    for seconds, tokens in ((120, 12_000), (240, 12_000)):
        _say(backend, page, _later(seconds, tokens))
        expect(_figure(page, "rate-now")).to_have_text("100" if seconds == 120 else "0")
    box = page.locator('[data-drawing="rate"] svg').bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.65, box["y"] + 40)
    expect(_figure(page, "rate-now")).to_have_text("100")
    expect(page.locator('[data-tile="cost"] [data-scope]')).to_have_text("120 s ago")
    expect(page.locator(".cursor:not([style*=none])")).to_have_count(6)
    page.mouse.move(5, 5)
    expect(_figure(page, "rate-now")).to_have_text("0")


def test_odd_memories_are_forgotten(open_page):
    """What an older page has left does not break this one."""
    page = open_page("/status", init_script='sessionStorage.setItem("huginn.samples", \'[{"time": 1}, 7]\');')
    expect(page.get_by_role("status")).to_have_text("Live.")
    expect(_figure(page, "tokens")).to_have_text("12,000")


@LANGUAGES
def test_the_view_fits_a_phone(backend, open_page, language):
    """Nothing is wider than the screen, every target is large enough for a thumb, no word lies over another one."""
    page = open_page(f"/status?lang={language}", **PHONE)
    expect(page.locator('[data-drawing="rate"] svg text').first).to_be_attached()
    _say(backend, page, _later(290, 100))
    expect(page.locator('[data-tile="errors"] [data-scope]')).to_contain_text("(+")
    targets = "a[href]:not(.skip), button, summary"
    small = page.locator(targets).evaluate_all("""(elements) => elements
      .filter((element) => element.checkVisibility())
      .map((element) => [element.id || element.textContent, element.getBoundingClientRect()])
      .filter(([, box]) => box.height < 43.9 || box.width < 43.9 || box.right > innerWidth || box.left < 0)
      .map(([name, box]) => `${name} ${JSON.stringify(box)}`)""")
    assert small == []
    page.locator("#table summary").tap()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    overlapping = page.evaluate("""() => [...document.querySelectorAll(".drawing svg, .tile")].flatMap((place) => {
      const words = place.matches("svg") ? "text" : "h2, .scope, dt, dd, .note, li > *";
      // The words themselves: a box may be smaller than what stands in it.
      const boxes = [...place.querySelectorAll(words)].map((text) => {
        const range = document.createRange();
        range.selectNodeContents(text);
        return [text.textContent, range.getBoundingClientRect()];
      });
      const meet = (a, b) => a.left < b.right && b.left < a.right && a.top + 3 < b.bottom && b.top + 3 < a.bottom;
      return boxes.flatMap(([name, a], at) =>
        boxes.slice(at + 1).filter(([, b]) => meet(a, b)).map(([other]) => [name, other]));
    })""")
    assert overlapping == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_and_lines_stand_out_from_their_ground(backend, open_page, scheme):
    """WCAG AA: 4.5 to 1 for words, 3 to 1 for the lines of the drawings."""
    page = open_page("/status", color_scheme=scheme)
    body = _later(2, 100)
    body["backend"]["errors"]["llm_timeout"] = 1
    _say(backend, page, body)
    expect(page.locator("#errors .fresh")).to_have_count(1)
    pairs = page.evaluate("""() => {
      const ground = (element) => {
        for (; element; element = element.parentElement) {
          const colour = getComputedStyle(element).backgroundColor;
          if (colour !== "rgba(0, 0, 0, 0)") return colour;
        }
      };
      const words = [...document.body.querySelectorAll("*")].filter((element) => element.checkVisibility() &&
        [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim()));
      return [
        ...words.map((element) => [element.textContent.trim(), 4.5, ground(element),
          getComputedStyle(element)[element instanceof SVGElement ? "fill" : "color"]]),
        ...[...document.querySelectorAll("path.line")].map((line) =>
          [line.getAttribute("class"), 3, ground(line), getComputedStyle(line).stroke]),
      ];
    }""")
    assert len(pairs) > 60
    for name, least, ground, colour in pairs:
        dark, light = sorted([luminance(colour), luminance(ground)])
        assert (light + 0.05) / (dark + 0.05) >= least, (name, colour, ground)


def test_the_same_figures_stand_in_a_table(backend, open_page):
    """For who does not see drawings; it opens by keyboard."""
    page = open_page("/status")
    _say(backend, page, _later(60, 3000, 6.0))
    expect(_figure(page, "rate-now")).to_have_text("50")
    page.locator("#table summary").press("Enter")
    cells = page.locator("#table tbody tr").first.locator("td")
    expect(cells).to_have_text(["0 s", "50", "–", "–", "3", "2", "2 s", "–"])


def test_only_the_state_is_read_aloud(open_page):
    """Numbers that change every two seconds are no news; every drawing has a name."""
    page = open_page("/status")
    expect(page.get_by_role("status")).to_have_text("Live.")
    live = page.evaluate("[...document.querySelectorAll('[aria-live], [role=status], [role=alert]')].map((e) => e.id)")
    assert live == ["state"]
    wait_until(page, lambda: page.locator("svg[role=img]:not([aria-label=''])").count() == 6)


def test_scripts_and_server_compute_the_same_quantiles(open_page):
    """One formula in two languages."""
    page = open_page("/status")
    draw = random.Random(7)
    cases = []
    for _ in range(200):
        bounds = sorted(draw.sample(range(1, 1000), draw.randint(1, 9)))
        counts = sorted(draw.randint(0, 40) for _ in range(len(bounds) + 1))
        cases.append((bounds, counts, draw.choice([0.5, 0.95, 0.99])))
    found = page.evaluate(
        """async (cases) => {
      const main = document.querySelector("script[type=module]").src;
      const { quantile } = await import(main.replace("status.js", "samples.js"));
      return cases.map(([bounds, counts, share]) => quantile(bounds, counts, share));
    }""",
        [list(case) for case in cases],
    )
    assert found == [pytest.approx(quantile(*case)) if case[1][-1] else None for case in cases]


def test_without_scripts_there_are_figures_and_the_way_to_newer_ones(backend, open_page):
    """Nothing is shown that could only be dead."""
    page = open_page("/status", java_script_enabled=False)
    expect(_figure(page, "first-p95")).to_have_text("100 ms")
    expect(page.get_by_role("status")).to_have_text("As it was when this page was loaded.")
    for dead in ("#pause", "#theme", "#table", ".drawing", '[data-tile="rate"]'):
        expect(page.locator(dead).first).to_be_hidden()
    backend.scripts["/api/status"] = as_json(_later(2, active=9))
    page.get_by_role("link", name="Read them again").click()
    expect(_figure(page, "slots-busy")).to_have_text("9 of 16")
