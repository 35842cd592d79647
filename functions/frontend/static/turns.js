// The texts on the page: each a beginning and what the model added. They last as long as the tab.

import { passing } from "./storage.js";
import { fill, firstToken, rate, strings, tokens } from "./words.js";

const KEY = "turns";
const KEPT = 50;

/** One text. `data` is what is kept of it; the element shows it. */
export class Turn {
  #beginning;
  #continuation;
  #figures;

  constructor(element, data) {
    this.element = element;
    this.data = data;
    this.#beginning = element.querySelector(".beginning");
    this.#continuation = element.querySelector(".continuation");
    this.#figures = element.querySelector(".figures");
    this.#beginning.textContent = data.prompt;
    // A text node that grows: replacing the whole text for every token would cost more with every token.
    this.#continuation.append(data.text);
    if (!this.#continuation.firstChild) this.#continuation.append(document.createTextNode(""));
    this.show();
  }

  get text() {
    return this.data.prompt + this.data.text;
  }

  append(text) {
    this.data.text += text;
    this.#continuation.firstChild.appendData(text);
  }

  /** Write the figures anew. */
  show() {
    const { model, count, perSecond, firstMs, end, seed } = this.data;
    const facts = [
      model,
      count > 0 && tokens(count),
      perSecond && rate(perSecond),
      firstMs !== null && firstToken(firstMs),
      end && (strings.ends[end] ?? end),
      seed && fill(strings.seed_was, { n: seed }),
    ];
    this.#figures.replaceChildren(
      ...facts.filter(Boolean).map((fact) => Object.assign(document.createElement("span"), { textContent: fact })),
    );
    this.element.classList.toggle("writing", !end);
    this.element.querySelector("[data-do=use-seed]").hidden = !seed;
  }

  /** Select the whole text, for the reader to copy. */
  select() {
    getSelection().selectAllChildren(this.element.querySelector(".text"));
  }
}

export class Turns {
  #list = document.getElementById("turns");
  #template = document.getElementById("turn-template");
  #turns = [];

  get size() {
    return this.#turns.length;
  }

  /** A new text that begins with `prompt`. */
  begin(prompt) {
    return this.#add({ prompt, text: "", model: "", count: 0, perSecond: null, firstMs: null, end: "", seed: "" });
  }

  /** Show what the tab remembers, then what came with the page. What was being written when it went is broken off. */
  restore() {
    const kept = passing.read(KEY);
    const served = [...this.#list.children].map((element) => JSON.parse(element.dataset.turn));
    this.#list.replaceChildren();
    for (const data of [...(Array.isArray(kept) ? kept : []), ...served]) {
      this.#add({ ...data, end: data.end || "interrupted" });
    }
  }

  remember() {
    passing.write(KEY, this.#turns.slice(-KEPT).map((turn) => turn.data));
  }

  remove(turn) {
    this.#turns = this.#turns.filter((other) => other !== turn);
    turn.element.remove();
    this.remember();
  }

  clear() {
    this.#turns = [];
    this.#list.replaceChildren();
    this.remember();
  }

  /** The text that an element of the page is part of. */
  find(element) {
    return this.#turns.find((turn) => turn.element.contains(element));
  }

  #add(data) {
    const element = this.#template.content.firstElementChild.cloneNode(true);
    const turn = new Turn(element, data);
    this.#turns.push(turn);
    this.#list.append(element);
    return turn;
  }
}
