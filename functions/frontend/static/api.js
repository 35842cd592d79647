// The API on the page's own origin.

import { EventStreamParser } from "./sse.js";

const HAS_SESSIONS = document.documentElement.dataset.sessionS !== undefined;

/** What went wrong: a code that strings/*.json has words for, and the server's own words where it sent some. */
export class ApiError extends Error {
  constructor(code, { message = "", field = null, retryable = false, retryAfterS = null } = {}) {
    super(message);
    this.code = code;
    this.field = field;
    this.retryable = retryable;
    this.retryAfterS = retryAfterS;
  }
}

/** The models that can be asked for: their names, and which is the default. */
export async function listModels() {
  const response = await reach("/api/llm/models", {});
  if (!response.ok) throw await errorOf(response);
  const { models } = await readJson(response);
  if (!Array.isArray(models)) throw new ApiError("unreadable");
  return models;
}

/** How the service is, in numbers: what `GET /api/status` says. */
export async function readStatus(signal) {
  const response = await reach("/api/status", { signal, cache: "no-store" });
  if (!response.ok) throw await errorOf(response);
  return readJson(response);
}

/**
 * The events of one generation, as they come; the last one is `done`.
 * @param {string} body the request as JSON
 * @param {AbortSignal} signal
 * @throws {ApiError} for every end other than `done`, except that an abort throws the signal's AbortError
 */
export async function* generate(body, signal) {
  const headers = { accept: "text/event-stream", "content-type": "application/json" };
  const response = await reach("/api/llm/stream", { ...post(body, headers), signal });
  if (!response.ok) throw await errorOf(response);
  if (!response.headers.get("content-type")?.startsWith("text/event-stream")) throw new ApiError("unreadable");

  for await (const { event, data } of events(response.body.getReader(), signal)) {
    const value = parse(data);
    if (event === "error") throw new ApiError(value.code ?? "unknown", value);
    // Seeds have up to 63 bits, a number of JavaScript 53: its digits are kept as they came.
    if (event === "done") value.seed = /"seed"\s*:\s*(\d+)/.exec(data)?.[1] ?? "";
    yield { event, ...value };
    if (event === "done") return;
  }
  throw new ApiError("interrupted", { retryable: true });
}

async function* events(reader, signal) {
  const decoder = new TextDecoder();
  const parser = new EventStreamParser();
  try {
    for (;;) {
      let piece;
      try {
        piece = await reader.read();
      } catch (error) {
        if (signal.aborted) throw error;
        throw new ApiError("interrupted", { retryable: true });
      }
      if (piece.done) return;
      yield* parser.push(decoder.decode(piece.value, { stream: true }));
    }
  } finally {
    // Whoever stops reading, for whatever reason, ends the generation too.
    reader.cancel().catch(() => {});
  }
}

/** Make the page's session last longer; another page of this site may have begun it anew. */
export async function renewSession() {
  await answered(await send("/session", post("", { accept: "application/json" })));
}

/** Begin a session: `form` is the filled form, password and all. */
export async function givePassword(form) {
  const headers = { accept: "application/json", "content-type": "application/x-www-form-urlencoded" };
  await answered(await send("/session", post(form, headers)));
}

async function answered(response) {
  if (!response.ok) throw await errorOf(response);
}

function post(body, headers) {
  return { method: "POST", headers, body, cache: "no-store" };
}

/** Ask the API; where it says that the session is over, which a sleeping computer does not notice, ask once more. */
async function reach(address, options) {
  const response = await send(address, options);
  if (response.status !== 401 || !HAS_SESSIONS) return response;
  await renewSession();
  return send(address, options);
}

async function send(address, options) {
  try {
    return await fetch(address, options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError("network", { retryable: true });
  }
}

async function errorOf(response) {
  const after = response.headers.get("retry-after");
  const retryAfterS = /^\d{1,9}$/.test(after ?? "") ? Number(after) : null;
  const { error } = await readJson(response).catch(() => ({}));
  if (!error?.code) return new ApiError("unknown", { message: `${response.status} ${response.statusText}`, retryable: true });
  return new ApiError(error.code, { ...error, retryAfterS });
}

async function readJson(response) {
  return parse(await response.text());
}

function parse(text) {
  try {
    const value = JSON.parse(text);
    if (value && typeof value === "object") return value;
  } catch {
    // Said below, for both.
  }
  throw new ApiError("unreadable", { message: text.slice(0, 200) });
}
