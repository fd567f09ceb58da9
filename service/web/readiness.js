// The server's state from /readyz: the status in the header, and the progress of a build.

import { fetchWithKey } from "./api.js";
import { byId } from "./dom.js";

const INTERVAL_MS = 1000;
const READY_INTERVAL_MS = 10_000;

const STATUS_TEXTS = {
  building: "Building",
  loading: "Loading the model",
  ready: "Ready",
  failed: "Failed",
  stopping: "Stopping",
  unreachable: "No answer",
};

/** Poll forever; calls `onReady` with the server's warning each time that it becomes ready. */
export async function watch(onReady) {
  let before = null;
  for (;;) {
    const now = await readState();
    show(now);
    if (now.status === "ready" && before !== "ready") onReady(now.detail ?? "");
    before = now.status;
    const interval = now.status === "ready" ? READY_INTERVAL_MS : INTERVAL_MS;
    await new Promise((resolve) => setTimeout(resolve, interval));
  }
}

async function readState() {
  try {
    const answer = await fetchWithKey("readyz", { cache: "no-store" });
    const body = await answer.json();
    if (body.status in STATUS_TEXTS) return body;
    return { status: "unreachable", detail: body.detail ?? body.title };
  } catch (error) {
    return { status: "unreachable", detail: error.message };
  }
}

function show({ status, phase, done, total, detail }) {
  setText(byId("status"), STATUS_TEXTS[status]);
  byId("status").dataset.state = status;
  byId("building").hidden = status === "ready";
  if (status === "ready") return;
  const titles = { building: "The model is being built", loading: "The model is being loaded" };
  setText(byId("building-title"), titles[status] ?? "The server cannot detect objects now");
  const counted = total ? ` ${done} of ${total}` : "";
  setText(byId("building-text"), phase ? `${phase}${counted}` : (detail ?? ""));
  const bar = byId("building-progress");
  bar.hidden = !(status in titles);
  byId("building-hint").hidden = status === "failed";
  if (total) Object.assign(bar, { max: total, value: done });
  else bar.removeAttribute("value"); // no total is known
}

/** Set a text only if it differs: a screen reader reads each change aloud. */
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
