// The page: a beginning goes in, tokens come out.

import { ApiError, generate } from "./api.js";
import { Measure } from "./measure.js";
import { keepSession } from "./session.js";
import { Settings } from "./settings.js";
import { passing } from "./storage.js";
import { setUpTheme } from "./theme.js";
import { Turns } from "./turns.js";
import { controlName, fill, strings, tokens, wordsOf } from "./words.js";

const byId = (id) => document.getElementById(id);
const form = byId("generate");
const prompt = byId("prompt");
const goButton = byId("go");
const stopButton = byId("stop");
const againButton = byId("again");
const clearButton = byId("clear");
const reading = byId("history");
const alertBox = byId("alert");

const settings = new Settings(form);
const turns = new Turns();

/** Ends the generation that is going on; null while there is none. */
let running = null;
/** Whether the view goes down with the text; it does not where the reader has scrolled up. */
let following = true;
let lastTop = 0;

async function run() {
  const text = prompt.value.trim();
  const request = settings.request(text);
  const measure = new Measure(() => performance.now());
  const { signal } = (running = new AbortController());
  const turn = turns.begin(text);
  let frame = 0;
  const draw = () => {
    frame = 0;
    Object.assign(turn.data, { count: measure.tokens, perSecond: measure.perSecond, firstMs: measure.firstMs });
    turn.show();
    if (following) scrollToEnd();
  };

  hideError();
  showRunning(true);
  say(strings.status.waiting);
  scrollToEnd();
  try {
    for await (const event of generate(request, signal)) {
      if (event.event === "token") {
        measure.token();
        if (measure.tokens === 1) say(strings.status.writing);
        turn.append(event.text);
        frame ||= requestAnimationFrame(draw);
      } else if (event.event === "done") {
        Object.assign(turn.data, { end: event.finish_reason, seed: event.seed, model: event.model ?? "" });
      }
    }
    const end = strings.ends[turn.data.end] ?? turn.data.end;
    say(fill(strings.status.done, { tokens: tokens(measure.tokens), end }));
  } catch (error) {
    turn.data.end = signal.aborted ? "stopped" : "interrupted";
    if (signal.aborted) {
      say(fill(strings.status.stopped, { tokens: tokens(measure.tokens) }));
    } else {
      say(""); // the alert speaks
      showError(error instanceof ApiError ? error : new ApiError("unknown", { message: String(error) }));
    }
  } finally {
    cancelAnimationFrame(frame);
    running = null;
    showRunning(false);
    draw();
    // Where nothing came there is nothing to keep: the beginning is still in the prompt.
    if (measure.tokens === 0 && turn.data.end === "interrupted") turns.remove(turn);
    turns.remember();
    showFrame();
  }
}

function showRunning(is) {
  const focused = document.activeElement;
  goButton.hidden = is;
  stopButton.hidden = !is;
  showFrame();
  // The focus must not fall off the page with the button that had it.
  if (is && (focused === goButton || focused === againButton)) stopButton.focus();
  if (!is && focused === stopButton) goButton.focus();
}

/** What stands around the texts, according to whether there are any. */
function showFrame() {
  byId("welcome").hidden = turns.size > 0;
  clearButton.hidden = turns.size === 0 || running !== null;
}

function say(words) {
  byId("status").textContent = words;
}

function showError(error) {
  const detail = byId("alert-detail");
  detail.hidden = !error.message;
  detail.querySelector("q").textContent = error.message;
  againButton.hidden = !error.retryable;
  alertBox.hidden = false;
  byId("alert-words").textContent = wordsOf(error);
  const control = error.field && settings.reveal(controlName(error.field));
  if (control) {
    control.setAttribute("aria-invalid", "true");
    control.focus();
  }
}

function hideError() {
  alertBox.hidden = true;
  for (const control of form.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
}

function scrollToEnd() {
  reading.scrollTop = reading.scrollHeight;
  following = true;
}

function setPrompt(text) {
  prompt.value = text;
  passing.write("prompt", text);
  prompt.focus();
  prompt.setSelectionRange(text.length, text.length);
  prompt.scrollTop = prompt.scrollHeight;
}

async function copy(turn, button) {
  try {
    // Absent where the page is not in a secure context; the catch is for both.
    await navigator.clipboard.writeText(turn.text);
    say(strings.copied);
    button.textContent = strings.copied;
    setTimeout(() => { button.textContent = strings.copy_text; }, 2000);
  } catch {
    turn.select();
    say(strings.copy_failed);
  }
}

function useTool(button) {
  const turn = turns.find(button);
  if (button.dataset.do === "copy") {
    copy(turn, button);
  } else if (button.dataset.do === "extend") {
    setPrompt(turn.text);
    say(strings.extended);
  } else if (button.dataset.do === "use-seed") {
    settings.useSeed(turn.data.seed);
    say(strings.used_seed);
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) return;
  // A phone's keyboard would cover the text that is about to come.
  if (matchMedia("(pointer: coarse)").matches) prompt.blur();
  run();
});
stopButton.addEventListener("click", () => running?.abort());
againButton.addEventListener("click", () => form.requestSubmit());
clearButton.addEventListener("click", () => {
  turns.clear();
  showFrame();
  say(strings.cleared);
  prompt.focus();
});
prompt.addEventListener("input", () => passing.write("prompt", prompt.value));
form.addEventListener("input", (event) => event.target.removeAttribute("aria-invalid"));
reading.addEventListener("click", (event) => {
  if (event.target.matches("[data-do]")) useTool(event.target);
  if (event.target.matches(".example")) setPrompt(event.target.textContent);
});
reading.addEventListener("scroll", () => {
  // The text may have grown between our own scrolling and its event: only a way up is the reader's.
  if (reading.scrollHeight - reading.scrollTop - reading.clientHeight < 48) following = true;
  else if (reading.scrollTop < lastTop) following = false;
  lastTop = reading.scrollTop;
});
document.addEventListener("keydown", (event) => {
  if (event.isComposing) return;
  if (event.key === "Escape") running?.abort();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && form.contains(event.target)) {
    event.preventDefault();
    form.requestSubmit();
  }
});
addEventListener("pagehide", () => turns.remember());

// A page that came as the answer to its form shows what was sent; any other shows what the browser remembers.
if (form.dataset.answered === undefined) settings.restore();
prompt.value ||= passing.read("prompt") ?? "";
turns.restore();
setUpTheme(byId("theme"));
keepSession();
showFrame();
scrollToEnd();
settings.loadModels();
