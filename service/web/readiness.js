// The server's state from /readyz: the mark in the header, and the build's progress until it ends.

import { fetchAny } from "./api.js";
import { byId } from "./dom.js";

const SOON_MS = 1000;
const LATER_MS = 10_000;

const WORDS = {
  building: "Building",
  loading: "Loading the model",
  ready: "Ready",
  failed: "Failed",
  stopping: "Stopping",
  unreachable: "No answer",
};

/** Ask for ever; `onReady` is called whenever the server becomes ready, with what it adds. */
export async function watch(onReady) {
  let before = null;
  for (;;) {
    const now = await state();
    show(now);
    if (now.status === "ready" && before !== "ready") onReady(now.detail ?? "");
    before = now.status;
    await new Promise((resolve) => setTimeout(resolve, before === "ready" ? LATER_MS : SOON_MS));
  }
}

async function state() {
  try {
    const answer = await fetchAny("readyz", { cache: "no-store" });
    const told = await answer.json();
    if (told.status in WORDS) return told;
    return { status: "unreachable", detail: told.detail ?? told.title };
  } catch (error) {
    return { status: "unreachable", detail: error.message };
  }
}

function show({ status, phase, done, total, detail }) {
  say(byId("status"), WORDS[status]);
  byId("status").dataset.state = status;
  byId("building").hidden = status === "ready";
  if (status === "ready") return;
  const titles = { building: "The model is being built", loading: "The model is being loaded" };
  say(byId("building-title"), titles[status] ?? "The server cannot detect now");
  const counted = total ? ` ${done} of ${total}` : "";
  say(byId("building-words"), phase ? `${phase}${counted}` : (detail ?? ""));
  const bar = byId("building-progress");
  const works = status in titles;
  bar.hidden = !works;
  byId("building-hint").hidden = status === "failed";
  if (total) Object.assign(bar, { max: total, value: done });
  else bar.removeAttribute("value"); // how long it will take is not known
}

/** Set a text where it differs, so that a screen reader hears only news. */
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
