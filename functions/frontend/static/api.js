// The API on the page's own origin.

import { EventStreamParser } from "./sse.js";

/** What went wrong: a code that strings/*.json has words for, and the server's own words where it sent some. */
export class ApiError extends Error {
  constructor(code, { message = "", field = null, retryable = false } = {}) {
    super(message);
    this.code = code;
    this.field = field;
    this.retryable = retryable;
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
  const bytes = new TextEncoder().encode(body);
  const headers = { accept: "text/event-stream", "content-type": "application/json" };
  const digest = await sha256(bytes);
  // CloudFront signs the request to the function behind it, and needs the body's hash from whoever knows the body.
  if (digest) headers["x-amz-content-sha256"] = digest;

  const response = await reach("/api/llm/stream", { method: "POST", headers, body: bytes, signal, cache: "no-store" });
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

async function reach(address, options) {
  try {
    return await fetch(address, options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError("network", { retryable: true });
  }
}

async function errorOf(response) {
  const { error } = await readJson(response).catch(() => ({}));
  if (!error?.code) return new ApiError("unknown", { message: `${response.status} ${response.statusText}`, retryable: true });
  return new ApiError(error.code, error);
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

async function sha256(bytes) {
  // Browsers offer SubtleCrypto in secure contexts only: https, or this machine.
  if (!globalThis.crypto?.subtle) return null;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
