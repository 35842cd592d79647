// Reads text/event-stream, cut anywhere (https://html.spec.whatwg.org/multipage/server-sent-events.html).
// EventSource itself cannot POST.

export class EventStreamParser {
  #line = "";
  #event = "";
  #data = [];
  #afterReturn = false;
  #begun = false;

  /**
   * The events that this piece of text completes.
   * @param {string} text
   * @returns {{event: string, data: string}[]}
   */
  push(text) {
    if (!this.#begun && text) {
      this.#begun = true;
      if (text.startsWith("\uFEFF")) text = text.slice(1);
    }
    // A line end may be CRLF, and the cut may fall between the two.
    if (this.#afterReturn && text) {
      this.#afterReturn = false;
      if (text.startsWith("\n")) text = text.slice(1);
    }
    this.#afterReturn = text.endsWith("\r") || (this.#afterReturn && !text);

    const events = [];
    const lines = text.split(/\r\n|\r|\n/);
    lines[0] = this.#line + lines[0];
    this.#line = lines.pop();
    for (const line of lines) {
      if (line === "") this.#dispatch(events);
      else this.#field(line);
    }
    return events;
  }

  #field(line) {
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment, which servers send to keep a connection alive
    const name = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value.startsWith(" ")) value = value.slice(1);
    if (name === "event") this.#event = value;
    else if (name === "data") this.#data.push(value);
  }

  #dispatch(events) {
    if (this.#data.length) events.push({ event: this.#event || "message", data: this.#data.join("\n") });
    this.#event = "";
    this.#data = [];
  }
}
