"""The whole way: a browser, the page, the API and a model, each in a process of its own, as `huginn up` starts them."""

import re
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import jax
import pytest
from playwright.sync_api import expect

from functions.llm.checkpoints.checkpoint import save_checkpoint
from functions.llm.models import LSTM, LSTMConfig
from functions.llm.tokenizers import CharTokenizer
from tests.e2e.typing_reader import OBSERVE, begin, wait_until
from tests.local.huginn_up import Up, get, unused_ports

pytestmark = pytest.mark.browser

MOST_TOKENS = 4096
PATIENCE_S = 60


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """Random weights, and so many that the most tokens a request may ask for take many seconds on any machine."""
    chars = CharTokenizer.from_text("\n ,.abcdefghijklmnopqrstuvwxyzé")
    config = LSTMConfig(vocab_size=chars.vocab_size, emb=256, hid=768, layers=2)
    path = tmp_path_factory.mktemp("ckpts") / "slow"
    save_checkpoint(path, LSTM(config, LSTM.init_params(config, jax.random.key(0))), chars, "# slow\n")
    return path


@pytest.fixture(scope="module")
def up(checkpoint) -> Iterator[Up]:
    """All tiers, ready."""
    running = Up(checkpoint, unused_ports())
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.close()


def metric(up: Up, name: str) -> float:
    """What the model's exporter says of one series."""
    text = get(up.ports["metrics"], "/metrics")[1].decode()
    return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)[1])


def wait_for_metric(up: Up, name: str, value: float) -> None:
    """Return once the series has this value."""
    deadline = time.monotonic() + PATIENCE_S
    while (found := metric(up, name)) != value:
        assert time.monotonic() < deadline, f"{name} is {found}, not {value}"
        time.sleep(0.05)


def test_stop_in_the_page_stops_the_model(open_page, up):
    """Type, see the text grow, stop: the model writes no token more. A reload keeps the text; the next one comes."""
    page = open_page(origin=f"http://127.0.0.1:{up.ports['page']}")
    expect(page.get_by_label("Model").locator("option")).to_have_text(["slow (default)"])
    page.get_by_label("Max tokens").fill(str(MOST_TOKENS))
    page.evaluate(OBSERVE)
    begin(page, "once upon a midnight")
    wait_until(page, lambda: page.evaluate("window.seen.length") >= 3)
    assert metric(up, "huginn_llm_active_streams") == 1
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status")).to_contain_text("Stopped after")
    seen = [state["text"] for state in page.evaluate("window.seen")]
    assert all(later.startswith(earlier) for earlier, later in pairwise(seen))

    wait_for_metric(up, "huginn_llm_active_streams", 0)
    wait_for_metric(up, 'huginn_llm_requests_total{outcome="cancelled"}', 1)
    generated = metric(up, "huginn_llm_generated_tokens_total")
    assert len(seen[-1]) <= generated < MOST_TOKENS
    page.wait_for_timeout(300)
    assert metric(up, "huginn_llm_generated_tokens_total") == generated

    kept = page.locator("#turns .text").inner_text()
    page.reload()
    expect(page.locator("#turns .text")).to_have_text(kept, use_inner_text=True)
    expect(page.locator("#turns .figures")).to_contain_text("stopped by you")
    page.get_by_label("Max tokens").fill("5")
    page.locator("#go").click()
    expect(page.get_by_role("status")).to_have_text("Done: 5 tokens, limit reached.")


def test_closing_the_page_stops_the_model(open_page, up):
    """Nobody is left to press Stop."""
    before = metric(up, 'huginn_llm_requests_total{outcome="cancelled"}')
    page = open_page(origin=f"http://127.0.0.1:{up.ports['page']}")
    page.get_by_label("Max tokens").fill(str(MOST_TOKENS))
    begin(page)
    expect(page.locator("#turns .continuation")).not_to_be_empty()
    page.close()
    wait_for_metric(up, 'huginn_llm_requests_total{outcome="cancelled"}', before + 1)
    wait_for_metric(up, "huginn_llm_active_streams", 0)


def test_the_status_view_counts_what_the_model_writes(open_page, up):
    """As the exporter does; a token that is written is seen."""
    page = open_page("/status?lang=en", origin=f"http://127.0.0.1:{up.ports['page']}")
    expect(page.get_by_role("status")).to_have_text("Live.")
    ask = {"prompt": "once upon a midnight", "max_tokens": 20}
    httpx.post(f"http://127.0.0.1:{up.ports['page']}/api/llm/generate", json=ask, timeout=PATIENCE_S, trust_env=False)
    generated = metric(up, "huginn_llm_generated_tokens_total")
    expect(page.locator('[data-figure="tokens"]')).to_have_text(f"{generated:,.0f}")
    expect(page.locator('[data-figure="rate-now"]')).not_to_have_text("0")
    expect(page.locator('[data-figure="models"]')).to_have_text("slow")


@pytest.mark.parametrize("scripts", [True, False], ids=["streamed", "form"])
def test_the_page_shows_what_the_model_says(open_page, up, scripts):
    """Not a character more, less or other after three tiers and a browser; with scripts and without."""
    asked = {"prompt": "once upon a midnight", "max_tokens": 60, "seed": 7}
    answer = httpx.post(f"http://127.0.0.1:{up.ports['llm']}/generate", json=asked, timeout=PATIENCE_S, trust_env=False)
    page = open_page(origin=f"http://127.0.0.1:{up.ports['page']}", java_script_enabled=scripts)
    page.locator("#max_tokens").fill("60")
    page.locator("#seed").fill("7")
    begin(page, asked["prompt"])
    expect(page.locator("#turns .figures")).to_contain_text("60 tokens")
    expect(page.locator("#turns .figures")).to_contain_text("limit reached")
    assert page.locator("#turns .continuation").text_content() == answer.json()["text"]
