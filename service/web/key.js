// The API key: asked for once, kept in this tab only.

import { byId } from "./dom.js";

const NAME = "qyolo-api-key";

let key = stored();
let asking = null;

export function keyHeaders() {
  return key === null ? {} : { Authorization: `Bearer ${key}` };
}

export function hasKey() {
  return key !== null;
}

/** Whether the user gave a key; whoever asks meanwhile waits for the same answer. */
export function askForKey() {
  asking ??= show().finally(() => {
    asking = null;
  });
  return asking;
}

function show() {
  const dialog = byId("key");
  const text = byId("key-text");
  if (key !== null) {
    byId("key-words").textContent = "The server did not accept that key.";
    keep(null);
  }
  text.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  text.focus();
  return new Promise((resolve) => {
    const closed = () => {
      const given = dialog.returnValue === "use" && text.value.trim() !== "";
      if (given) keep(text.value.trim());
      resolve(given);
    };
    dialog.addEventListener("close", closed, { once: true });
  });
}

function keep(value) {
  key = value;
  try {
    if (value === null) sessionStorage.removeItem(NAME);
    else sessionStorage.setItem(NAME, value);
  } catch {
    // A browser that keeps nothing for this site: the key lives as long as the page.
  }
}

function stored() {
  try {
    return sessionStorage.getItem(NAME);
  } catch {
    return null;
  }
}
