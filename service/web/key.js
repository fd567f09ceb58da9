// The API key: asked for once, stored for this tab only.

import { byId } from "./dom.js";

const NAME = "qyolo-api-key";

let key = load();
let asking = null;

export function keyHeaders() {
  return key === null ? {} : { Authorization: `Bearer ${key}` };
}

export function hasKey() {
  return key !== null;
}

/** Ask for a key; resolves to whether the user gave one. Concurrent calls share one dialog. */
export function askForKey() {
  asking ??= openDialog().finally(() => {
    asking = null;
  });
  return asking;
}

function openDialog() {
  const dialog = byId("key");
  const text = byId("key-input");
  if (key !== null) {
    byId("key-text").textContent = "The server did not accept that key.";
    store(null);
  }
  text.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  text.focus();
  return new Promise((resolve) => {
    const closed = () => {
      const given = dialog.returnValue === "use" && text.value.trim() !== "";
      if (given) store(text.value.trim());
      resolve(given);
    };
    dialog.addEventListener("close", closed, { once: true });
  });
}

function store(value) {
  key = value;
  try {
    if (value === null) sessionStorage.removeItem(NAME);
    else sessionStorage.setItem(NAME, value);
  } catch {
    // The browser stores nothing for this site: the key is lost with the page.
  }
}

function load() {
  try {
    return sessionStorage.getItem(NAME);
  } catch {
    return null;
  }
}
