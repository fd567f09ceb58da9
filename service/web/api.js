// Requests to the server: with the API key, with retries, and its problem documents as errors.

import { askForKey, keyHeaders } from "./key.js";

const MAX_WAIT_S = 10;
const ATTEMPTS = 5;

/** An error to show; `status` is 0 when the server was not reached, `waitS` its Retry-After. */
export class Problem extends Error {
  constructor(title, detail, status, waitS = null) {
    super(detail === "" ? title : `${title}: ${detail}`);
    Object.assign(this, { title, detail, status, waitS });
  }
}

/** The response, whatever its status; throws a Problem if there is none. */
export async function fetchWithKey(path, options = {}) {
  try {
    return await fetch(path, { ...options, headers: { ...options.headers, ...keyHeaders() } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const sent = options.body === undefined ? "" : ", or the picture is larger than it accepts";
    throw new Problem("No answer", `the server cannot be reached${sent}`, 0);
  }
}

/** A successful response; throws a Problem otherwise. On 401 it asks for a key, unless `quiet`. */
export async function request(path, options = {}) {
  const response = await fetchWithKey(path, options);
  if (response.ok) return response;
  const problem = await problemOf(response);
  const canAsk = problem.status === 401 && !options.quiet;
  if (canAsk && (await askForKey())) return request(path, options);
  throw problem;
}

/** `request`, repeated while the server is busy; calls `onWait` before each wait. */
export async function requestWithRetries(path, options, onWait) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await request(path, options);
    } catch (error) {
      if (!(error.status === 429 || error.status === 503) || attempt === ATTEMPTS) throw error;
      const seconds = Math.min(error.waitS ?? 1, MAX_WAIT_S);
      onWait(error, seconds);
      await sleep(seconds * 1000, options.signal);
    }
  }
}

async function problemOf(response) {
  const wait = Number.parseFloat(response.headers.get("Retry-After"));
  const waitS = Number.isNaN(wait) ? null : wait;
  const body = await response.json().catch(() => null);
  const title = body?.title ?? (response.statusText || "The server answered with an error");
  return new Problem(title, body?.detail ?? `status ${response.status}`, response.status, waitS);
}

function sleep(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
