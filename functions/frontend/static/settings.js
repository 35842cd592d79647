// The sampling controls: read, remembered, set back; each with a slider where the markup asks for one.

import { listModels } from "./api.js";
import { lasting } from "./storage.js";
import { fill, strings } from "./words.js";

const KEY = "settings";
const NARROW = matchMedia("(max-width: 60rem)");

export class Settings {
  #form;
  #panel;
  #controls;
  #model;
  #modelsAsked = false;

  constructor(form) {
    this.#form = form;
    this.#panel = form.querySelector("#settings");
    this.#model = form.elements.model;
    this.#controls = [...this.#panel.querySelectorAll("input[name], textarea[name], select[name]")];
    for (const control of this.#controls) if (control.dataset.slider) addSlider(control);

    this.#panel.addEventListener("input", () => this.#changed());
    document.getElementById("defaults").addEventListener("click", () => this.#setBack());
    // A browser cannot point at a control that is folded away.
    this.#panel.addEventListener("invalid", () => { this.#panel.open = true; }, true);
    this.#model.addEventListener("focus", () => this.loadModels());
    this.#panel.open = !NARROW.matches;
    NARROW.addEventListener("change", () => { this.#panel.open = !NARROW.matches; });
    this.#show();
  }

  /** Set what was remembered from an earlier visit. */
  restore() {
    const values = lasting.read(KEY) ?? {};
    for (const control of this.#controls) {
      const value = values[control.name];
      if (typeof value !== "string") continue;
      if (control === this.#model && value) this.#addModel(value);
      control.value = value;
    }
    this.#show();
  }

  /** The request as JSON. Empty controls are left out: the service has its own defaults. */
  request(prompt) {
    const request = { prompt };
    for (const control of this.#controls) {
      const value = control.value.trim();
      if (!value || control.name === "seed") continue;
      request[control.name] = control.type === "number" ? Number(value) : control.name === "stop" ? stops(control.value) : value;
    }
    const json = JSON.stringify(request);
    // 63 bits do not fit into a number of JavaScript; the digits do fit into JSON.
    const seed = this.#form.elements.seed.value.trim();
    return seed ? `${json.slice(0, -1)},"seed":${BigInt(seed)}}` : json;
  }

  useSeed(seed) {
    this.#form.elements.seed.value = seed;
    this.#changed();
  }

  /** The control that sends this field, made visible; null where the page has none. */
  reveal(field) {
    const control = this.#form.elements[field];
    if (!control) return null;
    if (this.#panel.contains(control)) this.#panel.open = true;
    return control;
  }

  /** Fill the chooser, once; asked again at each focus until the service has answered. */
  async loadModels() {
    if (this.#modelsAsked) return;
    this.#modelsAsked = true;
    const unread = document.getElementById("models-unread");
    try {
      for (const model of await listModels()) {
        // Without a choice the request names no model, so that it follows the service when its default changes.
        if (model.default) this.#model.options[0].text = fill(strings.model_default_named, model);
        else this.#addModel(model.name);
      }
      unread.hidden = true;
    } catch {
      this.#modelsAsked = false;
      unread.hidden = false;
    }
  }

  #addModel(name) {
    if (![...this.#model.options].some((option) => option.value === name)) this.#model.add(new Option(name, name));
  }

  #setBack() {
    for (const control of this.#controls) control.value = control.dataset.default ?? "";
    this.#changed();
  }

  #changed() {
    lasting.write(KEY, Object.fromEntries(this.#controls.map((control) => [control.name, control.value])));
    this.#show();
  }

  /** The folded panel says what is set. */
  #show() {
    const { temperature, max_tokens: maxTokens } = this.#form.elements;
    const changed = this.#controls.filter((control) => control.value !== (control.dataset.default ?? ""));
    const named = new Set([temperature, maxTokens, ...changed]);
    document.getElementById("digest").textContent = [...named]
      .filter((control) => control.value.trim())
      .map((control) => `${strings.controls[control.name].label} ${control.value.trim().replaceAll("\n", " ")}`)
      .join(" · ");
    for (const control of this.#controls) control.dispatchEvent(new Event("huginn:shown"));
  }
}

/** `\n`, `\t` and `\\` mean line end, tab and backslash; form.py reads them the same way. */
function stops(text) {
  const meaning = { "\\n": "\n", "\\t": "\t", "\\\\": "\\" };
  return text.split("\n").filter(Boolean).map((line) => line.replace(/\\[nt\\]/g, (found) => meaning[found]));
}

/** A slider for pointers; the number beside it is the control, for keyboards and screen readers. */
function addSlider(control) {
  const [min, max, step] = control.dataset.slider.split(" ");
  const slider = Object.assign(document.createElement("input"), { type: "range", min, max, step, tabIndex: -1 });
  slider.setAttribute("aria-hidden", "true");
  slider.addEventListener("input", () => {
    control.value = slider.value;
    control.dispatchEvent(new Event("input", { bubbles: true }));
  });
  control.addEventListener("huginn:shown", () => { slider.value = control.value || control.dataset.default; });
  control.before(slider);
}
