// Lines over time, as SVG. A drawing is as wide as its place, so that its words keep their size.

import { fill, strings } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 132;
const TOP = 8;
const BOTTOM = 20;
const RIGHT = 4;

export class Drawing {
  #place;
  #title;
  #spanS;
  #format;
  #logarithmic;
  #least;
  #svg = element("svg", { role: "img", height: HEIGHT });
  #frame = element("g", { class: "frame" });
  #lines = element("g");
  #cursor = element("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM });
  #shown = null;

  /**
   * @param {HTMLElement} place
   * @param {object} options `title`; `spanS`: the seconds that are drawn; `format`: of the numbers at the side;
   *   `logarithmic`: whether the scale is; `least`: the least that the top of the scale stands for
   */
  constructor(place, { title, spanS, format, logarithmic = false, least = 1 }) {
    [this.#place, this.#title, this.#spanS, this.#format] = [place, title, spanS, format];
    [this.#logarithmic, this.#least] = [logarithmic, least];
    this.#cursor.style.display = "none";
    this.#svg.append(this.#frame, this.#lines, this.#cursor);
    place.append(this.#svg);
    new ResizeObserver(() => this.#shown && this.draw(...this.#shown)).observe(place);
  }

  get element() {
    return this.#svg;
  }

  /**
   * @param {number} now the time at the right edge
   * @param {{name: string, area?: boolean, points: {time: number, value: number|null}[]}[]} lines
   * @param {number|null} capacity what cannot be exceeded, drawn as a line
   */
  draw(now, lines, capacity = null) {
    this.#shown = [now, lines, capacity];
    const width = this.#place.clientWidth;
    if (!width) return;
    const values = lines.flatMap(({ points }) => points.map(({ value }) => value)).filter((value) => value !== null);
    const scale = this.#logarithmic ? decades(values) : fromZero(Math.max(this.#least, capacity ?? 0, ...values));
    const labels = scale.ticks.map((tick) => (tick === 0 ? "0" : this.#format(tick)));
    // The same room for all at the left, so that one moment is at one place; more only where a number needs it.
    const left = Math.max(56, 10 + 6.6 * Math.max(...labels.map((label) => label.length)));
    const x = (time) => width - RIGHT - ((now - time) / this.#spanS) * (width - RIGHT - left);
    const y = (value) => HEIGHT - BOTTOM - scale.share(value) * (HEIGHT - TOP - BOTTOM);

    this.#svg.setAttribute("width", width);
    this.#svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.#describe(values);
    this.#frame.replaceChildren(
      ...scale.ticks.flatMap((tick, at) => [
        element("line", { x1: left, x2: width - RIGHT, y1: round(y(tick)), y2: round(y(tick)) }),
        text(labels[at], { x: left - 6, y: round(y(tick)) + 4, "text-anchor": "end" }),
      ]),
      ...this.#times(now, x, width),
    );
    if (capacity !== null) {
      this.#frame.append(element("line", { class: "capacity", x1: left, x2: width - RIGHT, y1: round(y(capacity)), y2: round(y(capacity)) }));
    }
    this.#lines.replaceChildren(...lines.flatMap((line) => this.#line(line, x, y)));
    this.#x = x;
    this.#left = left;
  }

  #x = null;
  #left = 0;

  /** The time under a place on the screen, or null where nothing is drawn. */
  timeAt(clientX) {
    if (!this.#x || !this.#shown) return null;
    const [now] = this.#shown;
    const at = clientX - this.#svg.getBoundingClientRect().left;
    const [begin, end] = [this.#left, this.#x(now)];
    return at < begin ? null : Math.min(now, now - ((end - at) / (end - begin)) * this.#spanS);
  }

  /** Mark a time; null marks none. */
  mark(time) {
    this.#cursor.style.display = time === null || !this.#x ? "none" : "";
    if (time === null || !this.#x) return;
    const x = round(this.#x(time));
    this.#cursor.setAttribute("x1", x);
    this.#cursor.setAttribute("x2", x);
  }

  #times(now, x, width) {
    const { axis } = strings.status_view;
    const minutes = Math.round(this.#spanS / 60);
    // On a phone there is room for every other one.
    const every = width < 420 ? 2 : 1;
    return Array.from({ length: Math.floor(minutes / every) + 1 }, (_, at) => {
      const ago = at * every;
      const label = ago === 0 ? axis.now : fill(axis.minutes, { n: ago });
      const anchor = ago === 0 ? "end" : ago === minutes ? "start" : "middle";
      return text(label, { x: round(x(now - ago * 60)), y: HEIGHT - 4, "text-anchor": anchor });
    });
  }

  #line({ name, area, points }, x, y) {
    const pieces = [];
    for (const { time, value } of points) {
      if (value === null) pieces.push([]);
      else (pieces.at(-1) ?? (pieces.push([]), pieces.at(-1))).push([round(x(time)), round(y(value))]);
    }
    return pieces.filter((piece) => piece.length).flatMap((piece) => {
      // One point alone would be an invisible line.
      const drawn = piece.length > 1 ? piece : [[piece[0][0] - 2, piece[0][1]], piece[0]];
      const path = drawn.map(([px, py]) => `${px} ${py}`).join("L");
      const line = element("path", { class: `line ${name}`, d: `M${path}` });
      if (!area) return [line];
      const ground = HEIGHT - BOTTOM;
      return [element("path", { class: `area ${name}`, d: `M${drawn[0][0]} ${ground}L${path}L${drawn.at(-1)[0]} ${ground}Z` }), line];
    });
  }

  #describe(values) {
    const words = strings.status_view;
    const label = values.length
      ? fill(words.drawing, {
          title: this.#title,
          minutes: Math.round(this.#spanS / 60),
          least: this.#format(Math.min(...values)),
          most: this.#format(Math.max(...values)),
        })
      : fill(words.drawing_empty, { title: this.#title });
    this.#svg.setAttribute("aria-label", label);
  }
}

/** A scale from zero to a round number. */
function fromZero(most) {
  const unit = 10 ** Math.floor(Math.log10(most));
  const top = [1, 2, 4, 5, 10].map((step) => step * unit).find((step) => step >= most * 0.999);
  return { ticks: [0, top / 2, top], share: (value) => value / top };
}

/** A scale of powers of ten; for times, which are milliseconds for most and seconds for some. */
function decades(values) {
  const positive = values.filter((value) => value > 0);
  const low = Math.floor(Math.log10(Math.min(0.01, ...positive)) + 1e-9);
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(0.1, ...positive)) - 1e-9));
  const ticks = Array.from({ length: high - low + 1 }, (_, at) => 10 ** (low + at));
  return { ticks, share: (value) => (Math.log10(Math.max(value, 10 ** low)) - low) / (high - low) };
}

function element(name, attributes = {}) {
  const made = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  return made;
}

function text(words, attributes) {
  const made = element("text", attributes);
  made.textContent = words;
  return made;
}

function round(number) {
  return Math.round(number * 10) / 10;
}
