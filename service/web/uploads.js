// Pictures that the user chooses, drops anywhere on the page, or pastes.

import { byId } from "./dom.js";

/** Call `onPicture` with each file; other pasted or dropped content is left to the browser. */
export function listenForPictures(onPicture) {
  const input = byId("file");
  input.addEventListener("change", () => {
    if (input.files.length > 0) onPicture(input.files[0]);
    input.value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (file !== undefined) onPicture(file);
  });
  listenForDrops(onPicture);
}

function listenForDrops(onPicture) {
  const hasFile = (event) => event.dataTransfer.types.includes("Files");
  const highlight = (on) => document.body.classList.toggle("dropping", on);
  document.addEventListener("dragover", (event) => {
    if (!hasFile(event)) return;
    event.preventDefault(); // or the browser opens the file in place of the page
    highlight(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) highlight(false); // the pointer left the window
  });
  document.addEventListener("drop", (event) => {
    if (!hasFile(event)) return;
    event.preventDefault();
    highlight(false);
    onPicture(event.dataTransfer.files[0]);
  });
}
