// A picture from the webcam; nothing is sent before the user takes it.

import { byId } from "./dom.js";

/** Show the camera button where browsers allow a camera: on https and on localhost. */
export function offerCamera(onPicture) {
  if (navigator.mediaDevices?.getUserMedia === undefined) return;
  const dialog = byId("camera");
  const video = byId("viewfinder");
  byId("camera-open").hidden = false;
  byId("camera-open").addEventListener("click", () => open(dialog, video));
  byId("camera-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => stop(video));
  byId("shoot").addEventListener("click", async () => {
    const picture = await snapshot(video);
    dialog.close();
    onPicture(picture);
  });
}

async function open(dialog, video) {
  byId("shoot").disabled = true;
  byId("camera-text").textContent = "Opening the camera.";
  dialog.showModal();
  try {
    const stream = await navigator.mediaDevices.getUserMedia({
      video: { width: { ideal: 1280 }, facingMode: "environment" },
    });
    video.srcObject = stream;
    if (!dialog.open) return stop(video); // closed before the user answered the browser's question
    await video.play();
    byId("camera-text").textContent = "";
    byId("shoot").disabled = false;
    byId("shoot").focus();
  } catch (error) {
    const refused = error.name === "NotAllowedError";
    byId("camera-text").textContent = refused
      ? "The browser may not use the camera."
      : "No camera could be opened.";
  }
  return undefined;
}

function stop(video) {
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  video.srcObject = null;
}

function snapshot(video) {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
}
