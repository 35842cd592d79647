// How fast the tokens come, as the reader sees it: from the click, network and queue included.

/** What came within this time came together: a frame of the screen or so, in which no rate can be seen. */
const TOGETHER_MS = 20;

export class Measure {
  #now;
  #begin;
  #first = null;
  #last = null;
  tokens = 0;

  /** @param {() => number} now milliseconds that never go back */
  constructor(now) {
    this.#now = now;
    this.#begin = now();
  }

  token() {
    this.#last = this.#now();
    this.#first ??= this.#last;
    this.tokens += 1;
  }

  /** Milliseconds from the click to the first token, or null. */
  get firstMs() {
    return this.#first === null ? null : this.#first - this.#begin;
  }

  /** Tokens per second after the first one, or since the click where all came together; null for fewer than two. */
  get perSecond() {
    if (this.tokens < 2) return null;
    const coming = this.#last - this.#first;
    if (coming < TOGETHER_MS) return (this.tokens * 1000) / (this.#last - this.#begin);
    return ((this.tokens - 1) * 1000) / coming;
  }
}
