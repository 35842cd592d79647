// The status view: asks the API every two seconds how it is, and shows the figures and the drawings of the last minutes.

import { ApiError, readStatus } from "./api.js";
import { Drawing } from "./drawing.js";
import { Samples } from "./samples.js";
import { keepSession } from "./session.js";
import { passing } from "./storage.js";
import { setUpTheme } from "./theme.js";
import { duration, energy, figure, megabytes, ofAll, percent, whole } from "./units.js";
import { age, fill, strings, wordsOf } from "./words.js";

const EVERY_MS = 2000;
const SPAN_S = 300;
/** A rate is taken over this time: one look alone would jump. */
const RATE_S = 6;
/** And quantiles over this one: it takes some requests to have any. */
const QUANTILES_S = 30;

const words = strings.status_view;
const byId = (id) => document.getElementById(id);
const samples = new Samples(SPAN_S);
const pauseButton = byId("pause");
const table = byId("table");

let paused = false;
let timer = 0;
let looks = 0;
/** The time that the pointer points at, or null. */
let pointed = null;

const tokensPerSecond = ({ passed }) => passed.tokensPerSecond;
const QUANTILE_NAMES = ["p99", "p95", "p50"];
const quantileLines = (name) => () =>
  QUANTILE_NAMES.map((quantile) => line(quantile, QUANTILES_S, ({ passed }) => passed[name][quantile]));

/** What each drawing shows: its options, its lines, and what cannot be exceeded. */
const DRAWINGS = {
  rate: { format: figure, least: 10, lines: () => [line("one", RATE_S, tokensPerSecond, { area: true })] },
  slots: {
    format: whole,
    least: 2,
    lines: () => [
      line("one", 0, ({ sample }) => sample.llm?.active ?? null, { area: true }),
      line("two", 0, ({ sample }) => sample.llm?.queue_depth ?? null),
    ],
    capacity: () => samples.last.llm?.slots ?? null,
  },
  first: { format: duration, logarithmic: true, lines: quantileLines("firstToken") },
  between: { format: duration, logarithmic: true, lines: quantileLines("interToken") },
  cost: { format: duration, logarithmic: true, lines: () => [line("one", QUANTILES_S, ({ passed }) => passed.cpuSecondsPer1000)] },
  cache: { format: percent, least: 1, lines: () => [line("one", QUANTILES_S, ({ passed }) => passed.cacheShare, { area: true })] },
};

const drawings = Object.fromEntries(
  Object.entries(DRAWINGS).map(([name, options]) => {
    const place = document.querySelector(`[data-drawing="${name}"]`);
    return [name, new Drawing(place, { title: words.tiles[name].title, spanS: SPAN_S, ...options })];
  }),
);

function line(name, overS, value, options = {}) {
  const points = samples.steps(overS).map((step) => ({ time: step.time, value: value(step) }));
  return { name, points, ...options };
}

async function look() {
  clearTimeout(timer);
  const mine = (looks += 1);
  try {
    const sample = await readStatus(AbortSignal.timeout(5 * EVERY_MS));
    // Another one was begun meanwhile, and knows more.
    if (mine !== looks) return;
    samples.push(sample);
    show();
    say(samples.last.llm ? words.state.live : words.state.away, !samples.last.llm);
  } catch (error) {
    if (mine !== looks) return;
    const known = error instanceof ApiError ? error : new ApiError("network");
    say(known.code === "not_found" ? words.state.off : wordsOf(known), true);
  }
  // Nobody looks at a page in the background; it looks again when it is seen again.
  if (!paused && !document.hidden) timer = setTimeout(look, EVERY_MS);
}

function say(state, bad = false) {
  const place = byId("state");
  if (paused) return;
  place.classList.toggle("bad", bad);
  document.body.classList.toggle("stale", bad);
  // Said aloud when it changes, and not every two seconds.
  if (place.textContent !== state) place.textContent = state;
}

function show() {
  const { last } = samples;
  showFacts(last);
  showFigures(last);
  showErrors();
  for (const [name, { lines, capacity }] of Object.entries(DRAWINGS)) {
    drawings[name].draw(last.time, lines(), capacity?.() ?? null);
  }
  point(pointed);
  if (table.open) showTable();
}

function showFacts({ models, instances, uptime_s: uptime, llm, backend }) {
  set("models", models.join(", ") || "–");
  set("instances", whole(instances));
  set("uptime", age(uptime));
  set("memory", megabytes(llm?.resident_bytes || null));
  set("streams", whole(backend.open_streams));
  set("tokens", whole(llm?.tokens_generated ?? null));
}

/** The figures of the last minutes; of all the time where nothing has happened in them. */
function showFigures(sample) {
  const [recent, ever] = [samples.whole(), samples.sinceStart()];
  const choose = (tile, happened) => {
    const passed = recent && (happened(recent) || !happened(ever)) ? recent : ever;
    scope(tile, passed === recent ? span(recent.seconds) : words.since_start);
    return passed;
  };
  const rates = samples.steps(RATE_S).map(tokensPerSecond).filter((rate) => rate !== null);
  scope("rate", recent ? span(recent.seconds) : "");
  set("rate-now", figure(rates.at(-1) ?? null));
  set("rate-mean", figure(recent?.tokensPerSecond ?? null));
  set("rate-most", figure(rates.length ? Math.max(...rates) : null));
  scope("slots", words.figures.now);
  showSlots(sample);
  for (const [tile, name] of [["first", "firstToken"], ["between", "interToken"]]) {
    const passed = choose(tile, (it) => it[name].p50 !== null);
    for (const quantile of QUANTILE_NAMES) set(`${tile}-${quantile}`, duration(passed[name][quantile]));
  }
  const cost = choose("cost", (it) => it.cpuSecondsPer1000 !== null);
  set("cost-cpu", duration(cost.cpuSecondsPer1000));
  set("cost-energy", energy(cost.joulesPer1000));
  const cache = choose("cache", (it) => it.cacheShare !== null);
  set("cache-share", percent(cache.cacheShare));
  set("cache-spared", ofAll(cache.cachedPromptTokens, cache.promptTokens));
}

function showSlots({ llm }) {
  set("slots-busy", llm ? ofAll(llm.active, llm.slots) : "–");
  set("slots-waiting", llm ? ofAll(llm.queue_depth, llm.max_queue) : "–");
}

function showErrors() {
  const ever = Object.entries(samples.last.backend.errors).filter(([, count]) => count);
  const passed = samples.whole();
  const recent = passed?.errors ?? {};
  scope("errors", passed ? `${words.since_start} (+ ${span(passed.seconds)})` : words.since_start);
  const most = Math.max(...ever.map(([, count]) => count));
  const rows = ever
    .sort(([a, m], [b, n]) => (recent[b] ?? 0) - (recent[a] ?? 0) || n - m || (a < b ? -1 : 1))
    .map(([code, count]) => {
      const row = document.createElement("li");
      const bar = Object.assign(document.createElement("i"), { className: "bar" });
      bar.style.inlineSize = `${(100 * count) / most}%`;
      const name = Object.assign(document.createElement("code"), { textContent: code, title: strings.errors[code] ?? "" });
      const fresh = recent[code] ? ` (+${whole(recent[code])})` : "";
      row.append(name, " ", Object.assign(document.createElement("span"), { textContent: whole(count) + fresh }), bar);
      row.classList.toggle("fresh", Boolean(fresh));
      return row;
    });
  byId("errors").replaceChildren(...rows);
  byId("no-errors").hidden = rows.length > 0;
}

/** One row for every half minute. */
function showTable() {
  const { last } = samples;
  const rows = [];
  let next = last.time;
  for (const { time, sample, passed } of samples.steps(QUANTILES_S).reverse()) {
    if (time > next) continue;
    next = time - QUANTILES_S;
    rows.push([
      fill(strings.seconds, { n: whole(last.time - time) }), figure(passed.tokensPerSecond), duration(passed.firstToken.p95),
      duration(passed.interToken.p95), whole(sample.llm?.active ?? null), whole(sample.llm?.queue_depth ?? null),
      duration(passed.cpuSecondsPer1000), percent(passed.cacheShare),
    ]);
  }
  table.querySelector("tbody").replaceChildren(...rows.map((cells) => {
    const row = document.createElement("tr");
    row.append(...cells.map((cell) => Object.assign(document.createElement("td"), { textContent: cell })));
    return row;
  }));
}

/** Mark one moment in all drawings, and let the figures be those of that moment; null for the present ones. */
function point(time) {
  pointed = time;
  const near = (steps) => steps.reduce((best, step) => (Math.abs(step.time - time) < Math.abs(best.time - time) ? step : best));
  const steps = samples.steps(QUANTILES_S);
  const chosen = time === null || !steps.length ? null : near(steps);
  for (const drawing of Object.values(drawings)) drawing.mark(chosen?.time ?? null);
  if (!chosen) return;
  const { sample, passed } = chosen;
  const ago = fill(words.at, { n: whole(samples.last.time - chosen.time) });
  for (const tile of Object.keys(DRAWINGS)) scope(tile, ago);
  set("rate-now", figure(near(samples.steps(RATE_S)).passed.tokensPerSecond));
  showSlots(sample);
  for (const quantile of QUANTILE_NAMES) {
    set(`first-${quantile}`, duration(passed.firstToken[quantile]));
    set(`between-${quantile}`, duration(passed.interToken[quantile]));
  }
  set("cost-cpu", duration(passed.cpuSecondsPer1000));
  set("cost-energy", energy(passed.joulesPer1000));
  set("cache-share", percent(passed.cacheShare));
  set("cache-spared", ofAll(passed.cachedPromptTokens, passed.promptTokens));
}

function span(seconds) {
  return seconds < 90
    ? fill(words.last_seconds, { n: whole(seconds) })
    : fill(words.last_minutes, { n: whole(seconds / 60) });
}

function scope(tile, text) {
  document.querySelector(`[data-tile="${tile}"] [data-scope]`).textContent = text;
}

function set(name, text) {
  document.querySelector(`[data-figure="${name}"]`).textContent = text;
}

pauseButton.addEventListener("click", () => {
  if (!paused) say(words.state.paused);
  paused = !paused;
  pauseButton.textContent = paused ? words.resume : words.pause;
  clearTimeout(timer);
  if (!paused) look();
});
document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (!paused && !document.hidden) look();
});
table.addEventListener("toggle", () => { if (table.open && samples.last) showTable(); });
for (const drawing of Object.values(drawings)) {
  drawing.element.addEventListener("pointermove", (event) => { if (samples.last) point(drawing.timeAt(event.clientX)); });
  drawing.element.addEventListener("pointerleave", () => { pointed = null; if (samples.last) show(); });
}
addEventListener("pagehide", () => passing.write("samples", samples.all));

// Who was on the page a moment ago finds the drawings as they were left, up to what the page has come with.
const served = JSON.parse(byId("sample").textContent);
const kept = passing.read("samples");
try {
  for (const sample of kept ?? []) samples.push(sample);
  if (served) samples.push(served);
  if (served) show();
} catch {
  // What an older page has left is not what this one keeps: it begins anew.
  samples.clear();
}
setUpTheme(byId("theme"));
keepSession();
look();
