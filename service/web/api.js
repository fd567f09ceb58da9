// Talking to the server: the API key where it wants one, its problem documents in words.

import { askForKey, keyHeaders } from "./key.js";

const LONGEST_WAIT_S = 10;
const TRIES = 5;

/** Why there is no answer, in words; `status` is 0 when the server was not reached. */
export class Problem extends Error {
  constructor(title, detail, status, waitS = null) {
    super(detail === "" ? title : `${title}: ${detail}`);
    Object.assign(this, { title, detail, status, waitS });
  }
}

/** The answer, whatever its status: for /readyz, whose 503 is an answer too. */
export async function fetchAny(path, options = {}) {
  try {
    return await fetch(path, { ...options, headers: { ...options.headers, ...keyHeaders() } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const sent = options.body === undefined ? "" : ", or it refused a picture larger than it takes";
    throw new Problem("No answer", `the server could not be reached${sent}`, 0);
  }
}

/** The answer if it is a good one; a Problem is thrown otherwise. Asks for a key when told to. */
export async function ask(path, options = {}) {
  const answer = await fetchAny(path, options);
  if (answer.ok) return answer;
  const problem = await problemOf(answer);
  if (problem.status === 401 && !options.quiet && (await askForKey())) return ask(path, options);
  throw problem;
}

/** `ask`, again and again while the server says that it is busy; `waiting` is told of each wait. */
export async function askPatiently(path, options, waiting) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await ask(path, options);
    } catch (error) {
      if (!(error.status === 429 || error.status === 503) || attempt === TRIES) throw error;
      const seconds = Math.min(error.waitS ?? 1, LONGEST_WAIT_S);
      waiting(error, seconds);
      await pause(seconds * 1000, options.signal);
    }
  }
}

async function problemOf(answer) {
  const wait = Number.parseFloat(answer.headers.get("Retry-After"));
  const waitS = Number.isNaN(wait) ? null : wait;
  const told = await answer.json().catch(() => null);
  const title = told?.title ?? (answer.statusText || "The server answered with an error");
  return new Problem(title, told?.detail ?? `status ${answer.status}`, answer.status, waitS);
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
