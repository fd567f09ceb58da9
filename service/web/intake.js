// How a picture comes in: chosen, dropped anywhere on the page, or pasted.

import { byId } from "./dom.js";

/** Hand every picture to `take`; what is not a file is left to the browser. */
export function receive(take) {
  const input = byId("file");
  input.addEventListener("change", () => {
    if (input.files.length > 0) take(input.files[0]);
    input.value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (file !== undefined) take(file);
  });
  receiveDrops(take);
}

function receiveDrops(take) {
  const hasFile = (event) => event.dataTransfer.types.includes("Files");
  const light = (on) => document.body.classList.toggle("dropping", on);
  document.addEventListener("dragover", (event) => {
    if (!hasFile(event)) return;
    event.preventDefault(); // or the browser would open the file in place of the page
    light(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) light(false); // it has left the window
  });
  document.addEventListener("drop", (event) => {
    if (!hasFile(event)) return;
    event.preventDefault();
    light(false);
    take(event.dataTransfer.files[0]);
  });
}
