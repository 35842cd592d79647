// How fast the tokens come, as the reader sees it: from the click, network and queue included.

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

  /** Tokens per second after the first one, or null while there is nothing to divide. */
  get perSecond() {
    return this.tokens > 1 && this.#last > this.#first ? ((this.tokens - 1) * 1000) / (this.#last - this.#first) : null;
  }
}
