// A picture from the webcam. Nothing leaves the browser before it is taken.

import { byId } from "./dom.js";

/** Offer the camera where the browser has one to offer: on https and on localhost. */
export function offerCamera(take) {
  if (navigator.mediaDevices?.getUserMedia === undefined) return;
  const dialog = byId("camera");
  const video = byId("viewfinder");
  byId("camera-open").hidden = false;
  byId("camera-open").addEventListener("click", () => open(dialog, video));
  byId("camera-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => stop(video));
  byId("shoot").addEventListener("click", async () => {
    const picture = await still(video);
    dialog.close();
    take(picture);
  });
}

async function open(dialog, video) {
  byId("shoot").disabled = true;
  byId("camera-words").textContent = "Waiting for the camera.";
  dialog.showModal();
  try {
    const stream = await navigator.mediaDevices.getUserMedia({
      video: { width: { ideal: 1280 }, facingMode: "environment" },
    });
    video.srcObject = stream;
    if (!dialog.open) return stop(video); // closed while the user was being asked
    await video.play();
    byId("camera-words").textContent = "";
    byId("shoot").disabled = false;
    byId("shoot").focus();
  } catch (error) {
    const refused = error.name === "NotAllowedError";
    byId("camera-words").textContent = refused
      ? "The browser was not allowed to use the camera."
      : "No camera could be opened.";
  }
  return undefined;
}

function stop(video) {
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  video.srcObject = null;
}

function still(video) {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
}
