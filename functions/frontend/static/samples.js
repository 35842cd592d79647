// What the API counts, looked at again and again: every figure is the difference of two looks.

const QUANTILES = { p50: 0.5, p95: 0.95, p99: 0.99 };

/** The looks of the last minutes, oldest first. */
export class Samples {
  #samples = [];
  #keptS;

  /** @param {number} keptS for how many seconds a look is kept */
  constructor(keptS) {
    this.#keptS = keptS;
  }

  get all() {
    return this.#samples;
  }

  get last() {
    return this.#samples.at(-1) ?? null;
  }

  /** Add a look. Looks that are too old go; all go with another epoch, for the counts have begun anew. */
  push(sample) {
    if (this.last && (sample.time < this.last.time || this.last.epoch !== sample.epoch)) this.#samples = [];
    // Of one moment the later look counts: the page has come with one, and its scripts have made another.
    if (this.last?.time === sample.time) this.#samples.pop();
    this.#samples.push(sample);
    while (sample.time - this.#samples[0].time > this.#keptS) this.#samples.shift();
  }

  clear() {
    this.#samples = [];
  }

  /** What happened between the first look and the last one, or null where there are no two. */
  whole() {
    return this.#samples.length > 1 ? between(this.#samples[0], this.last) : null;
  }

  /** What happened since the processes began. */
  sinceStart() {
    return between(null, this.last);
  }

  /** For each look what happened in the `overS` seconds before it: `[{ time, sample, passed }]`. */
  steps(overS) {
    let from = 0;
    return this.#samples.slice(1).map((sample, at) => {
      while (from < at && sample.time - this.#samples[from + 1].time >= overS) from += 1;
      return { time: sample.time, sample, passed: between(this.#samples[from], sample) };
    });
  }
}

/** The figures of the time between two looks; from the start where `from` is null. Each is null where nothing happened. */
function between(from, to) {
  const seconds = from ? to.time - from.time : null;
  const [before, after] = [from?.llm ?? null, to.llm];
  const counted = (name) => (after ? after[name] - (before?.[name] ?? 0) : 0);
  // A service that was away at the first look may have counted for long before.
  const known = after !== null && (from === null || before !== null);
  const tokens = known ? counted("tokens_generated") : 0;
  const lookups = known ? counted("cache_hits") + counted("cache_misses") : 0;
  const cpuSeconds = tokens ? (1000 * counted("cpu_seconds")) / tokens : null;
  return {
    seconds,
    tokensPerSecond: known && seconds ? tokens / seconds : null,
    firstToken: known ? quantiles(before?.time_to_first_token_s, after.time_to_first_token_s) : NO_QUANTILES,
    interToken: known ? quantiles(before?.inter_token_s, after.inter_token_s) : NO_QUANTILES,
    cpuSecondsPer1000: cpuSeconds,
    joulesPer1000: cpuSeconds === null ? null : cpuSeconds * after.watts_per_cpu,
    cacheShare: lookups ? counted("cache_hits") / lookups : null,
    promptTokens: known ? counted("prompt_tokens") : 0,
    cachedPromptTokens: known ? counted("cached_prompt_tokens") : 0,
    errors: difference(from?.backend.errors ?? {}, to.backend.errors),
  };
}

const NO_QUANTILES = { p50: null, p95: null, p99: null };

function quantiles(before, after) {
  const counts = after.counts.map((count, at) => count - (before?.counts[at] ?? 0));
  return Object.fromEntries(
    Object.entries(QUANTILES).map(([name, share]) => [name, quantile(after.bounds, counts, share)]),
  );
}

/**
 * What `share` of the measurements are at most; functions/frontend/status_figures.py has the same.
 * @param {number[]} bounds upper bounds of the buckets, ascending
 * @param {number[]} counts how many were at most each bound, and lastly how many there were at all
 */
export function quantile(bounds, counts, share) {
  const total = counts.at(-1);
  if (!total) return null;
  const rank = share * total;
  let low = 0;
  let below = 0;
  for (const [at, bound] of bounds.entries()) {
    if (counts[at] >= rank) return low + ((bound - low) * (rank - below)) / (counts[at] - below);
    [low, below] = [bound, counts[at]];
  }
  return bounds.at(-1);
}

function difference(before, after) {
  const counts = Object.entries(after).map(([name, count]) => [name, count - (before[name] ?? 0)]);
  return Object.fromEntries(counts.filter(([, count]) => count > 0));
}
