"""The page in a browser: a beginning goes in, tokens come out, and the reader stays in charge."""

import json
import re
import time
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.typing_reader import OBSERVE, begin, wait_until
from tests.frontend.fake_backend import PATIENCE_S, Pace, Script, as_error, done_event, stream, token_events
from tests.frontend.loopback import serve_frontend
from tests.unused_ports import unused_address

pytestmark = pytest.mark.browser

GOLDEN = Path(__file__).parents[1] / "contract" / "golden"

PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}
SLOW = stream([f" word{n}" for n in range(2000)], gap_s=0.05)
LANGUAGES = pytest.mark.parametrize("language", ["en", "fr"])


def _wait_for_words(page: Page, word: str = "word3", turn: int = 0) -> None:
    expect(page.locator("#turns .continuation").nth(turn)).to_contain_text(word)


def _distance_to_end(page: Page) -> float:
    """How far the view is above the end of the texts, in pixels."""
    return page.locator("#history").evaluate("(e) => e.scrollHeight - e.scrollTop - e.clientHeight")


def test_tokens_are_seen_as_they_come(backend, open_page):
    """The model writes a token only after the reader has seen the one before; then the figures stand under the text."""
    words = [" a", " raven", " <b>spoke</b>", " &amp;", " “nevermore”"]
    pace = Pace()
    backend.scripts["/api/llm/stream"] = stream(words, pace=pace, finish_reason="stop")
    page = open_page()
    page.evaluate(OBSERVE)
    clicked = time.monotonic()
    with page.expect_request("**/api/llm/stream") as asked:
        begin(page, "  Once upon a midnight\n")
    page.wait_for_timeout(100)
    sent, shown = [], []
    for _ in words:
        sent.append(time.monotonic())
        pace.allow()
        wait_until(page, lambda: page.evaluate("window.seen.length") > len(shown))
        shown.append(time.monotonic())
    pace.allow()
    expect(page.get_by_role("status")).to_have_text("Done: 5 tokens, ended by itself.")
    seen = page.evaluate("window.seen")
    assert [state["text"] for state in seen] == ["".join(words[: n + 1]) for n in range(len(words))]
    assert len({state["frame"] for state in seen}) >= 3
    # The API trims prompts, and the page shows the text that the model saw.
    expect(page.locator("#turns .text")).to_have_text("Once upon a midnight" + "".join(words))
    figures = page.locator("#turns .figures")
    expect(figures).to_contain_text("fake-raven")
    expect(figures).to_contain_text("5 tokens")
    # What the page says of time lies between what we know of it from both sides; its figures are rounded.
    rate = float(re.search(r"([\d.,]+) tokens/s", figures.inner_text())[1].replace(",", ""))
    assert 4 / (shown[-1] - sent[0]) - 1 < rate < 4 / (sent[-1] - shown[0]) + 1
    first_s = int(re.search(r"first token after ([\d,]+) ms", figures.inner_text())[1].replace(",", "")) / 1000
    assert 0.095 < first_s < shown[0] - clicked + 0.001
    body = asked.value.post_data_buffer
    assert json.loads(body)["prompt"] == "Once upon a midnight"


@pytest.mark.parametrize("way", ["button", "Escape"])
def test_a_generation_can_be_stopped(backend, open_page, way):
    """What came is kept, the backend's work ends, and the page is ready for the next."""
    backend.scripts["/api/llm/stream"] = SLOW
    page = open_page()
    begin(page)
    _wait_for_words(page)
    if way == "button":
        page.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    expect(page.get_by_role("status")).to_contain_text("Stopped after")
    assert backend.client_left.wait(PATIENCE_S)
    kept = page.locator("#turns .continuation").inner_text()
    assert kept.startswith(" word0 word1")
    page.wait_for_timeout(200)
    assert page.locator("#turns .continuation").inner_text() == kept
    expect(page.locator("#turns .figures")).to_contain_text("stopped by you")
    expect(page.locator("#alert")).to_be_hidden()
    backend.scripts["/api/llm/stream"] = stream([" again"])
    page.get_by_role("button", name="Continue the text").click()
    expect(page.locator("#turns .turn").nth(1)).to_contain_text("Once upon a midnight again")


def test_a_reload_keeps_what_was_typed_chosen_and_written(backend, open_page):
    """Also in the middle of a stream, which then is shown as broken off."""
    page = open_page()
    begin(page, "First")
    expect(page.get_by_role("status")).to_contain_text("Done")
    page.get_by_label("Temperature").fill("1.25")
    page.get_by_label("Stop at").fill("END\n\\n")
    page.get_by_label("Model").select_option("other-crow")
    backend.scripts["/api/llm/stream"] = SLOW
    begin(page, "Second")
    _wait_for_words(page, "word2", turn=1)
    page.locator("#prompt").fill("Third,\nnot yet sent")
    page.reload()
    assert backend.client_left.wait(PATIENCE_S)
    expect(page.locator("#prompt")).to_have_value("Third,\nnot yet sent")
    expect(page.get_by_label("Temperature")).to_have_value("1.25")
    expect(page.get_by_label("Stop at")).to_have_value("END\n\\n")
    expect(page.get_by_label("Model")).to_have_value("other-crow")
    turns = page.locator("#turns .turn")
    expect(turns).to_have_count(2)
    expect(turns.nth(0)).to_contain_text("First a raven spoke")
    expect(turns.nth(1)).to_contain_text("Second word0 word1 word2")
    expect(turns.nth(1)).to_contain_text("broken off")
    expect(page.get_by_role("button", name="Continue the text")).to_be_visible()
    backend.scripts["/api/llm/stream"] = stream([" on"])
    page.locator("#go").click()
    expect(turns.nth(2)).to_contain_text("Third,\nnot yet sent on")
    assert backend.last.json()["stop"] == ["END", "\n"]
    page.get_by_role("button", name="Clear the texts").click()
    page.reload()
    expect(turns).to_have_count(0)
    expect(page.locator("#welcome")).to_be_visible()


@pytest.mark.parametrize(
    ("language", "words", "advice"),
    [
        ("en", "The API behind this page cannot be reached.", "Try again"),
        ("fr", "L’API derrière cette page est injoignable.", "Réessayer"),
    ],
)
def test_a_backend_that_is_down_is_said_in_words(open_page, language, words, advice):
    """By the alert, with what to do; no empty text is left, and the prompt is still there."""
    with serve_frontend(unused_address()) as origin:
        page = open_page(f"/?lang={language}", origin=origin)
        begin(page)
        expect(page.get_by_role("alert")).to_contain_text(words)
        expect(page.get_by_role("button", name=advice)).to_be_visible()
        expect(page.locator("#turns .turn")).to_have_count(0)
        expect(page.locator("#prompt")).to_have_value("Once upon a midnight")
        expect(page.locator("#models-unread")).to_be_visible()


def test_trying_again_goes_on_when_the_backend_is_back(backend, open_page):
    """The alert's own button asks again and the alert goes away."""
    backend.scripts["/api/llm/stream"] = as_error(503, "queue_full", "Full.", retryable=True)
    page = open_page()
    begin(page)
    expect(page.get_by_role("alert")).to_contain_text("The model is busy")
    backend.scripts["/api/llm/stream"] = stream([" well"])
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#turns .text")).to_have_text("Once upon a midnight well")
    expect(page.locator("#alert")).to_be_hidden()


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        (Script(breaks=True), "The answer broke off before its end."),
        (Script(), "The answer broke off before its end."),
        (Script(chunks=[b'event: error\ndata: {"code":"llm_timeout","message":"m","retryable":true}\n\n']), "silent"),
        (Script(chunks=[b"event: done\ndata: {oops\n\n"]), "The answer cannot be read."),
    ],
    ids=["transfer broken", "no last event", "error event", "not JSON"],
)
def test_a_stream_that_ends_badly_is_never_taken_for_whole(backend, open_page, ending, words):
    """What came is kept and marked; the alert says what happened."""
    chunks = [*token_events([" a", " raven"]), *ending.chunks]
    backend.scripts["/api/llm/stream"] = Script(
        200, {"content-type": "text/event-stream"}, chunks, gap_s=0.02, breaks=ending.breaks
    )
    page = open_page()
    begin(page)
    expect(page.get_by_role("alert")).to_contain_text(words)
    expect(page.locator("#turns .text")).to_have_text("Once upon a midnight a raven")
    expect(page.locator("#turns .figures")).to_contain_text("broken off")


@pytest.mark.parametrize(("name", "words"), [("plain", None), ("stop", None), ("error", "The server failed.")])
def test_the_scripts_read_the_golden_streams(backend, open_page, name, words):
    """The same files that the model's function writes and the API reads and writes."""
    golden = (GOLDEN / f"stream_{name}.sse").read_bytes()
    data = [json.loads(line.removeprefix("data: ")) for line in golden.decode().splitlines() if line.startswith("data")]
    backend.scripts["/api/llm/stream"] = Script(200, SLOW.headers, [golden])
    page = open_page()
    begin(page)
    if words:
        expect(page.get_by_role("alert")).to_contain_text(words)
        expect(page.get_by_role("alert")).to_contain_text(data[-1]["message"])
    else:
        expect(page.get_by_role("status")).to_contain_text(f"Done: {len(data) - 1} tokens")
        expect(page.locator("#turns .figures")).to_contain_text(f"seed {data[-1]['seed']}")
    shown = page.locator("#turns .continuation").evaluate("(element) => element.textContent")
    assert shown == "".join(event.get("text", "") for event in data)


def test_a_stream_that_makes_no_sense_is_left(backend, open_page):
    """The page does not go on paying for tokens that it cannot read."""
    chunks = [*token_events([" a"]), b"event: token\ndata: {oops\n\n", *SLOW.chunks]
    backend.scripts["/api/llm/stream"] = Script(200, SLOW.headers, chunks, SLOW.gap_s)
    page = open_page()
    begin(page)
    expect(page.get_by_role("alert")).to_contain_text("The answer cannot be read.")
    assert backend.client_left.wait(PATIENCE_S)


def test_a_value_that_is_refused_is_pointed_at(backend, open_page):
    """The alert names it as the page does, its control has the focus and is marked until it is changed."""
    backend.scripts["/api/llm/stream"] = as_error(422, "invalid_request", "top_k is 70, of 65 tokens.", field="top_k")
    page = open_page(**PHONE)
    begin(page)
    expect(page.get_by_role("alert")).to_contain_text("“Top-k” was not accepted.")
    expect(page.get_by_role("alert")).to_contain_text("top_k is 70, of 65 tokens.")
    control = page.get_by_label("Top-k")
    expect(control).to_be_focused()
    expect(control).to_have_attribute("aria-invalid", "true")
    control.fill("5")
    expect(control).not_to_have_attribute("aria-invalid", "true")


def test_everything_works_by_keyboard(backend, open_page):
    """Type, go, stop, and every control in the order in which it is seen; the focus is never lost."""
    backend.scripts["/api/llm/stream"] = SLOW
    page = open_page()
    order = []
    for _ in range(40):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            "[document.activeElement.tagName, document.activeElement.id, document.activeElement.innerText]"
        )
        if focused[0] == "BODY":
            break
        order.append(focused[1] or focused[2].strip())
    controls = page.evaluate("[...document.querySelectorAll('#settings [name]')].map((control) => control.id)")
    assert order == [
        "Skip to the prompt", "Write", "Status", "EN", "FR", "theme", "history",
        "ROMEO:", "To be, or not to be,", "Now is the winter", "prompt", "go", "Sampling", *controls, "defaults",
    ]  # fmt: skip
    page.locator("#prompt").focus()
    page.keyboard.type("Once")
    page.keyboard.press("Enter")
    page.keyboard.type("upon")
    page.keyboard.press("Control+Enter")
    _wait_for_words(page)
    expect(page.locator("#prompt")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("status")).to_contain_text("Stopped")
    assert backend.last.json()["prompt"] == "Once\nupon"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Stop")).to_be_focused()
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Continue the text")).to_be_focused()
    expect(page.locator("#turns .turn")).to_have_count(2)
    for button in ("#go", "#theme", "summary", "[data-do=copy]"):
        page.locator(button).first.focus()
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Tab")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none", button


@LANGUAGES
def test_the_page_fits_a_phone(backend, open_page, language):
    """Nothing is wider than the screen, every target is large enough for a thumb, and Stop stays in sight."""
    backend.scripts["/api/llm/stream"] = SLOW
    page = open_page(f"/?lang={language}", **PHONE)
    expect(page.locator("#temperature")).to_be_hidden()
    page.locator("summary").tap()
    page.get_by_label("Top-k").scroll_into_view_if_needed()
    targets = "a[href]:not(.skip), button, input, select, textarea, summary"
    small = page.locator(targets).evaluate_all("""(elements) => elements
      .filter((element) => element.checkVisibility())
      .map((element) => [element.id || element.textContent, element.getBoundingClientRect()])
      .filter(([, box]) => box.height < 43.9 || box.width < 43.9 || box.right > innerWidth || box.left < 0)
      .map(([name, box]) => `${name} ${JSON.stringify(box)}`)""")
    assert small == []
    page.locator("summary").tap()
    page.locator("#prompt").fill("Word" * 60)
    page.locator("#go").tap()
    _wait_for_words(page, "word60")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    expect(page.locator("#stop")).to_be_in_viewport(ratio=1)
    expect(page.locator("#turns .figures")).to_be_in_viewport()
    page.locator("#stop").tap()
    expect(page.locator("#go")).to_be_in_viewport(ratio=1)


@LANGUAGES
def test_the_form_works_without_scripts(backend, open_page, language):
    """A plain form is answered by a plain page; nothing is shown that could only be dead."""
    page = open_page(f"/?lang={language}", java_script_enabled=False)
    page.locator("#prompt").fill("Once upon\na midnight")
    page.locator("#temperature").fill("0.5")
    page.locator("#go").click()
    expect(page.locator("#turns .text")).to_have_text("Once upon\na midnight a raven <b>&amp; a crow</b>")
    expect(page.locator("html")).to_have_attribute("lang", language)
    expect(page.locator("#prompt")).to_have_value("Once upon\na midnight")
    expect(page.locator("#temperature")).to_have_value("0.5")
    assert backend.last.json()["temperature"] == 0.5
    for dead in ("#theme", "#stop", "#defaults", ".example", "[data-do]", ".keys"):
        expect(page.locator(dead).first).to_be_hidden()
    backend.scripts["/api/llm/generate"] = as_error(503, "llm_unavailable", "No model.", retryable=True)
    page.locator("#go").click()
    words = {"en": "The model service cannot be reached.", "fr": "Le service du modèle est injoignable."}
    expect(page.get_by_role("alert")).to_contain_text(words[language])
    expect(page.locator("#prompt")).to_have_value("Once upon\na midnight")


def test_an_answer_to_the_form_joins_the_other_texts_when_scripts_come_late(open_page):
    """A reader who was faster than the scripts loses neither the answer nor the earlier texts."""
    page = open_page()
    begin(page, "First")
    expect(page.get_by_role("status")).to_contain_text("Done")
    page.evaluate("document.getElementById('prompt').value = 'Second'; document.getElementById('generate').submit()")
    turns = page.locator("#turns .turn")
    expect(turns).to_have_count(2)
    expect(turns.nth(0)).to_contain_text("First a raven spoke")
    expect(turns.nth(1)).to_contain_text("Second a raven <b>")
    turns.nth(1).get_by_role("button", name="Go on from here").click()
    expect(page.locator("#prompt")).to_have_value("Second a raven <b>&amp; a crow</b>")


def test_the_language_follows_the_browser_and_the_switch(backend, open_page):
    """The switch keeps what was typed; figures are written as the language writes them."""
    pace = Pace()
    backend.scripts["/api/llm/stream"] = stream([" a"] * 3, pace=pace)
    page = open_page(locale="fr-FR")
    expect(page.locator("html")).to_have_attribute("lang", "fr")
    page.get_by_label("Début du texte").fill("Il était")
    page.get_by_role("link", name="English").click()
    expect(page.get_by_label("Beginning of the text")).to_have_value("Il était")
    page.get_by_role("link", name="Français").click()
    page.get_by_role("button", name="Poursuivre le texte").click()
    pace.allow()
    expect(page.locator("#turns .continuation")).to_have_text(" a")
    # A rate under ten has one decimal.
    page.wait_for_timeout(300)
    pace.allow(3)
    expect(page.get_by_role("status")).to_have_text("Terminé : 3 jetons, limite atteinte.")
    expect(page.locator("#turns .figures")).to_contain_text(re.compile(r"\d,\d jetons/s"))


def luminance(css: str) -> float:
    channels = [float(number) for number in re.findall(r"[\d.]+", css)[:3]]
    scaled = [channel / 255 if css.startswith("rgb") else channel for channel in channels]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in scaled]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(backend, open_page, scheme):
    """WCAG AA, 4.5 to 1, for every text there is, errors and placeholders included, in both sets of colours."""
    page = open_page(color_scheme=scheme)
    begin(page)
    expect(page.get_by_role("status")).to_contain_text("Done")
    backend.scripts["/api/llm/stream"] = as_error(503, "queue_full", "Full.", retryable=True)
    page.locator("#go").click()
    expect(page.get_by_role("alert")).to_be_visible()
    pairs = page.evaluate("""() => {
      const ground = (element) => {
        for (; element; element = element.parentElement) {
          const colour = getComputedStyle(element).backgroundColor;
          if (colour !== "rgba(0, 0, 0, 0)") return colour;
        }
      };
      const texts = [...document.body.querySelectorAll("*")].filter((element) => element.checkVisibility() &&
        [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim()));
      const placeholder = document.getElementById("seed");
      return [
        ...texts.map((element) => [element.textContent.trim(), getComputedStyle(element).color, ground(element)]),
        ["placeholder", getComputedStyle(placeholder, "::placeholder").color, ground(placeholder)],
      ];
    }""")
    assert len(pairs) > 40
    for text, colour, ground in pairs:
        dark, light = sorted([luminance(colour), luminance(ground)])
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, colour, ground)


def test_colours_follow_the_system_until_the_reader_chooses(open_page):
    """The choice outlives a reload, and is there before the first paint."""
    page = open_page(color_scheme="dark")

    def ground() -> float:
        return luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    assert ground() < 0.1
    page.emulate_media(color_scheme="light")
    assert ground() > 0.8
    page.get_by_role("button", name="Switch to dark colours").click()
    assert ground() < 0.1
    page.reload(wait_until="commit")
    page.wait_for_selector("body", state="attached")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.get_by_role("button", name="Switch to light colours").click()
    assert ground() > 0.8


def test_who_asked_for_less_motion_gets_none(backend, open_page):
    """The mark at the end of the growing text stands still."""
    backend.scripts["/api/llm/stream"] = SLOW
    for motion, animation in [("no-preference", "blink"), ("reduce", "none")]:
        page = open_page(reduced_motion=motion)
        begin(page)
        _wait_for_words(page)
        style = "getComputedStyle(document.querySelector('.continuation'), '::after').animationName"
        assert page.evaluate(style) == animation


def test_what_is_read_aloud_is_the_state_and_not_every_token(backend, open_page):
    """The text stands outside every live region; the state is said politely, an error at once."""
    page = open_page()
    begin(page)
    expect(page.get_by_role("status")).to_contain_text("Done")
    live = page.evaluate(
        "[...document.querySelectorAll('[aria-live], [role=status], [role=alert], [role=log]')].map((e) => e.id)"
    )
    assert sorted(live) == ["alert", "status"]
    assert page.evaluate("document.querySelector('#turns').closest('[aria-live], [role=log]')") is None
    unnamed = page.evaluate("""() => [...document.querySelectorAll("input:not([aria-hidden]), select, textarea")]
      .filter((control) => !control.labels.length).map((control) => control.id)""")
    assert unnamed == []


def test_forbidden_storage_costs_only_the_memory(backend, open_page):
    """A browser that refuses to store anything still shows a page that works."""
    forbid = """for (const name of ["localStorage", "sessionStorage"])
      Object.defineProperty(window, name, { get() { throw new DOMException("denied", "SecurityError"); } });"""
    page = open_page(init_script=forbid)
    page.get_by_role("button", name="Switch to dark colours").click()
    page.get_by_label("Temperature").fill("0.3")
    begin(page)
    expect(page.locator("#turns .text")).to_have_text("Once upon a midnight a raven spoke")
    assert backend.last.json()["temperature"] == 0.3


def test_odd_memories_are_forgotten(open_page):
    """What an older page or somebody's hand left in the storage does not break this one."""
    odd = """for (const storage of [localStorage, sessionStorage]) {
      storage.setItem("huginn.theme", "dark");
      storage.setItem("huginn.settings", "[1");
      storage.setItem("huginn.turns", "7");
      storage.setItem("huginn.prompt", "{");
    }"""
    page = open_page(init_script=odd)
    begin(page)
    expect(page.locator("#turns .text")).to_have_text("Once upon a midnight a raven spoke")


def test_without_secure_context_the_page_still_asks(backend, open_page):
    """Over plain http from another machine there is no clipboard."""
    bare = 'Object.defineProperty(Navigator.prototype, "clipboard", { get: () => undefined });'
    page = open_page(init_script=bare)
    begin(page)
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("status")).to_contain_text("The text is selected")
    assert page.evaluate("getSelection().toString()") == "Once upon a midnight a raven spoke"


def test_a_text_can_be_copied_and_gone_on_from(open_page):
    """Both take the whole text, beginning included."""
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    begin(page)
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "Once upon a midnight a raven spoke"
    page.get_by_role("button", name="Go on from here").click()
    expect(page.locator("#prompt")).to_have_value("Once upon a midnight a raven spoke")
    expect(page.locator("#prompt")).to_be_focused()
    page.get_by_role("button", name="Clear the texts").click()
    page.get_by_role("button", name="ROMEO:").click()
    expect(page.locator("#prompt")).to_have_value("ROMEO:")


def test_a_seed_keeps_all_its_digits(backend, open_page):
    """A number of JavaScript ends at 53 bits; a seed has 63, and must give the same text again."""
    backend.scripts["/api/llm/stream"] = stream([" a"], seed=2**63 - 1)
    page = open_page()
    begin(page)
    expect(page.locator("#turns .figures")).to_contain_text("seed 9223372036854775807")
    page.get_by_role("button", name="Use this seed").click()
    expect(page.get_by_label("Seed")).to_have_value("9223372036854775807")
    page.locator("#go").click()
    expect(page.locator("#turns .turn")).to_have_count(2)
    expect(page.get_by_role("status")).to_contain_text("Done")
    assert backend.last.json()["seed"] == 2**63 - 1


def test_the_request_is_what_the_controls_say(backend, open_page):
    """Numbers as numbers, stop strings as a list; sliders and numbers agree; the defaults are one click away."""
    page = open_page()
    expect(page.get_by_label("Model").locator("option")).to_have_text(["fake-raven (default)", "other-crow"])
    page.get_by_label("Model").select_option("other-crow")
    page.locator("input[type=range]").nth(1).fill("1.5")
    expect(page.get_by_label("Temperature")).to_have_value("1.5")
    page.get_by_label("Top-k").fill("40")
    page.get_by_label("Max tokens").fill("")
    page.get_by_label("Stop at").fill("\\n\\n\nEND")
    page.get_by_label("Seed").fill("7")
    begin(page, "a")
    expect(page.get_by_role("status")).to_contain_text("Done")
    assert backend.last.json() == {
        "prompt": "a", "model": "other-crow", "temperature": 1.5, "top_k": 40, "top_p": 1, "min_p": 0,
        "repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0, "penalty_decay": 1,
        "stop": ["\n\n", "END"], "seed": 7,
    }  # fmt: skip
    page.get_by_role("button", name="Back to the defaults").click()
    expect(page.get_by_label("Temperature")).to_have_value("0.8")
    page.locator("#go").click()
    expect(page.locator("#turns .turn")).to_have_count(2)
    expect(page.get_by_role("status")).to_contain_text("Done")
    assert backend.last.json()["max_tokens"] == 256
    assert backend.last.json().keys().isdisjoint({"model", "stop", "seed"})


def test_the_browser_refuses_what_it_can_see_is_wrong(backend, open_page):
    """An empty prompt and a number out of range are never sent, and a folded panel opens to show which it is."""
    page = open_page(**PHONE)
    page.locator("#go").tap()
    page.locator("summary").tap()
    page.get_by_label("Temperature").fill("11")
    page.locator("summary").tap()
    expect(page.locator("#temperature")).to_be_hidden()
    begin(page)
    expect(page.locator("#temperature")).to_be_visible()
    assert [request.path for request in backend.requests] == ["/api/llm/models"]


def test_characters_survive_every_cut(backend, open_page):
    """The network may cut anywhere: within a character, a line end, a frame."""
    text = " né 🐦‍⬛ “ravn”"
    body = b": hello\r\n\r\n" + token_events([text])[0].replace(b"\n", b"\r\n") + done_event(1)
    chunks = [body[at : at + 1] for at in range(len(body))]
    backend.scripts["/api/llm/stream"] = Script(200, {"content-type": "text/event-stream"}, chunks, gap_s=0.001)
    page = open_page()
    begin(page)
    expect(page.get_by_role("status")).to_contain_text("Done: 1 token,")
    assert page.locator("#turns .continuation").evaluate("(element) => element.textContent") == text


@pytest.mark.parametrize(
    ("times_ms", "per_second"),
    [([], None), ([80], None), ([80, 80], 25), ([80, 81, 82, 90], 4000 / 90), ([500, 600, 700], 10)],
    ids=["none", "one", "at once", "in a frame", "one after the other"],
)
def test_a_rate_is_one_that_a_reader_can_have_seen(open_page, times_ms, per_second):
    """A text that the browser has in one piece did not come at 255,000 tokens a second."""
    page = open_page()
    told = page.evaluate(
        """async (times) => {
      const main = document.querySelector("script[type=module]").src;
      const { Measure } = await import(main.replace("main.js", "measure.js"));
      let now = 0;
      const measure = new Measure(() => now);
      for (now of times) measure.token();
      return measure.perSecond;
    }""",
        times_ms,
    )
    assert told == (per_second and pytest.approx(per_second))


def test_the_parser_gives_the_same_events_however_the_stream_is_cut(open_page):
    """For all three line ends, and for every place to cut in two and every size of pieces."""
    page = open_page()
    result = page.evaluate("""async () => {
      const main = document.querySelector("script[type=module]").src;
      const { EventStreamParser } = await import(main.replace("main.js", "sse.js"));
      const text = "\\uFEFFevent: token\\ndata: {\\"a\\":\\n: comment\\ndata:  1}\\n\\n" +
        "retry: 5\\ndata\\n\\nevent: lost\\n\\n" +
        "data:x\\nid: 3\\n\\nevent: done\\ndata: end\\n\\ndata: never dispatched\\n";
      const parse = (pieces) => {
        const parser = new EventStreamParser();
        return JSON.stringify(pieces.flatMap((piece) => parser.push(piece)));
      };
      const wrong = [];
      let whole;
      for (const end of ["\\n", "\\r\\n", "\\r"]) {
        const stream = text.replaceAll("\\n", end);
        whole ??= parse([stream]);
        for (let at = 0; at <= stream.length; at += 1) {
          if (parse([stream.slice(0, at), "", stream.slice(at)]) !== whole) wrong.push([end, "cut", at]);
        }
        for (let size = 1; size < 9; size += 1) {
          if (parse(stream.match(new RegExp(`[^]{1,${size}}`, "g"))) !== whole) wrong.push([end, "size", size]);
        }
      }
      return { wrong, whole: JSON.parse(whole) };
    }""")
    assert result["wrong"] == []
    assert result["whole"] == [
        {"event": "token", "data": '{"a":\n 1}'},
        {"event": "message", "data": ""},
        {"event": "message", "data": "x"},
        {"event": "done", "data": "end"},
    ]


def test_the_view_follows_the_text_unless_the_reader_has_scrolled_up(backend, open_page):
    """A reader in the middle of an earlier line is left alone."""
    backend.scripts["/api/llm/stream"] = stream([f" line {n}\n" for n in range(4000)], gap_s=0.02)
    page = open_page(viewport={"width": 1280, "height": 600})
    begin(page)
    # More than one look: between two frames the text may be ahead of the view, but never for long.
    for line in (40, 60, 80):
        _wait_for_words(page, f"line {line}")
        assert min(_distance_to_end(page) for _ in range(20)) < 48
    page.locator("#history").hover()
    page.mouse.wheel(0, -400)
    tops = []

    def has_settled() -> bool:
        """Whether the wheel's own movement is over."""
        tops.append(page.evaluate("document.getElementById('history').scrollTop"))
        return len(tops) > 1 and tops[-1] == tops[-2] and _distance_to_end(page) > 200

    wait_until(page, has_settled, every_ms=200)
    height = page.locator("#history").evaluate("(e) => e.scrollHeight")
    wait_until(page, lambda: page.locator("#history").evaluate("(e) => e.scrollHeight") > height)
    assert page.evaluate("document.getElementById('history').scrollTop") == tops[-1]
    page.keyboard.press("Escape")


def test_the_policy_is_enforced(browser, site):
    """What would be written into the page from outside does not run; the other tests show that ours does."""
    page = browser.new_page()
    messages = []
    page.on("console", lambda message: messages.append(message.text))
    page.goto(site)
    page.evaluate("""() => {
      const planted = "<img src=x onerror='window.pwned = 1'><p id=planted style='color: red'>";
      document.body.insertAdjacentHTML("beforeend", planted);
      document.body.append(Object.assign(document.createElement("script"), { textContent: "window.pwned = 2" }));
      return fetch("http://127.0.0.1:9/").catch(() => {});
    }""")
    assert page.evaluate("window.pwned") is None
    assert page.evaluate("document.getElementById('planted').style.color") == ""
    assert sum("Content Security Policy" in message for message in messages) >= 4
    page.close()
