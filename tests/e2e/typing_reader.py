"""What a reader at the page does, and what is seen over the reader's shoulder."""

import time
from collections.abc import Callable

from playwright.sync_api import Page

# Every text that the continuation had on its way, and the frame in which it was first seen.
OBSERVE = """() => {
  window.seen = [];
  let frame = 0;
  const count = () => { frame += 1; requestAnimationFrame(count); };
  count();
  new MutationObserver(() => {
    const text = document.querySelector("#turns .continuation")?.textContent;
    if (text && text !== window.seen.at(-1)?.text) window.seen.push({ text, frame });
  }).observe(document.getElementById("turns"), { childList: true, subtree: true, characterData: true });
}"""


def begin(page: Page, prompt: str = "Once upon a midnight") -> None:
    """Type a beginning and ask for the rest."""
    page.locator("#prompt").fill(prompt)
    page.locator("#go").click()


def wait_until(page: Page, holds: Callable[[], bool], every_ms: int = 20) -> None:
    """Return once it holds. Playwright's own waiting for an expression needs `eval`, which our policy forbids."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        page.wait_for_timeout(every_ms)
