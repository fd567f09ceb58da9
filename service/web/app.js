// The page: sends a picture to two variants and shows both answers.

import { request, requestWithRetries } from "./api.js";
import { above, match, sidesOf } from "./boxes.js";
import { offerCamera } from "./camera.js";
import { byId, element, seriesOf } from "./dom.js";
import { plural } from "./format.js";
import { hasKey } from "./key.js";
import { startLive } from "./live.js";
import { drawSide, showPicture } from "./panels.js";
import { watch } from "./readiness.js";
import { listObjects, nameSides, showLatency } from "./tables.js";
import { listenForPictures } from "./uploads.js";

const MIN_CONF = byId("conf").min; // of every request: the slider filters the boxes of the answer
const RETRYABLE = [0, 401, 408, 429, 500, 503, 504];

const state = {
  model: {}, // the query of the selected one; empty where the server has only one
  variants: [],
  early: null, // a picture from before the server was ready
  picture: null,
  answer: null,
  sides: null,
  runs: [], // all answers to this picture by these two variants of a model, for the median times
  controller: null, // aborts the request in flight
};

watch((caveat) => {
  byId("caveat").textContent = caveat;
  byId("caveat").hidden = caveat === "";
  attempt(loadModel);
});
listenForPictures(acceptPicture);
offerCamera(acceptPicture);
byId("models").addEventListener("change", changeModel);
for (const side of ["a", "b"]) byId(side).addEventListener("change", runAgain);
byId("conf").addEventListener("input", render);
byId("run-again").addEventListener("click", runAgain);
byId("save").addEventListener("click", () => attempt(savePicture));
for (const link of document.querySelectorAll("a[data-saved-as]")) {
  link.addEventListener("click", downloadWithKey);
}

/** Read which models and variants there are, then compare on a picture that came early. */
async function loadModel() {
  const wanted = byId("models").value; // empty: the first one
  const query = wanted === "" ? "" : `?${new URLSearchParams({ model: wanted })}`;
  const response = await request(`v1/models${query}`).catch((error) => {
    if (error.status !== 404 || wanted === "") throw error;
    byId("models").replaceChildren(); // the server has been started again without this model
    return null;
  });
  if (response === null) return loadModel();
  const model = await response.json();
  if (byId("models").value !== wanted) return; // another one has been selected meanwhile
  listModels(model);
  byId("model").textContent = `${model.model}, ${model.device}, ${model.width}×${model.height}`;
  document.title = `qyolo: ${model.model}`;
  state.variants = model.variants.map(({ name }) => name);
  const labels = new Map(model.variants.map((variant) => [variant.name, labelOf(variant)]));
  for (const [id, preferred] of [["a", "fp32"], ["b", "int8"]]) {
    const known = (name) => state.variants.includes(name);
    const selected = [byId(id).value, preferred, model.default].find(known);
    const options = state.variants.map((name) =>
      element("option", { value: name, selected: name === selected }, labels.get(name)),
    );
    byId(id).replaceChildren(...options);
  }
  byId("trial").hidden = false;
  startLive(state.variants, state.model.model);
  const { early } = state;
  state.early = null;
  if (early !== null) await compare(early);
}

function listModels({ model, models }) {
  const isOne = models.length === 1;
  state.model = isOne ? {} : { model };
  const options = models.map(({ model: name }) =>
    element("option", { value: name, selected: name === model }, name),
  );
  byId("models").replaceChildren(...options);
  byId("model-choice").hidden = isOne;
  byId("report").href = `v1/report.html${isOne ? "" : `?${new URLSearchParams({ model })}`}`;
}

function changeModel() {
  byId("result").hidden = true;
  attempt(async () => {
    await loadModel();
    if (state.picture !== null) await compare(state.picture);
  });
}

function labelOf(variant) {
  if (variant.rejected !== null) return `${variant.name} (rejected)`;
  return variant.default ? `${variant.name} (default)` : variant.name;
}

function acceptPicture(file) {
  if (byId("trial").hidden) {
    state.early = file;
    showProblem("The picture is kept here until the server is ready.");
  } else {
    attempt(() => compare(file));
  }
}

function runAgain() {
  if (state.picture !== null) attempt(() => compare(state.picture));
}

/** Send a picture to both variants and show their boxes. */
async function compare(picture) {
  state.controller?.abort();
  state.controller = new AbortController();
  const { signal } = state.controller;
  setBusy(true);
  try {
    const response = await post(picture, { conf: MIN_CONF }, "application/json", signal);
    const answer = await response.json();
    if (picture !== state.picture) await showPicture(picture, answer.image);
    signal.throwIfAborted();
    const runs = isRepeated(picture, answer) ? [...state.runs, answer] : [answer];
    Object.assign(state, { picture, answer, sides: sidesOf(answer), runs });
    byId("result").hidden = false;
    byId("drop").classList.add("small");
    nameSides({ a: answer.a.variant, b: answer.b.variant });
    showLatency(side("a"), side("b"), runs);
    render();
  } finally {
    if (!signal.aborted) setBusy(false);
  }
}

function post(picture, query, accept, signal) {
  const search = new URLSearchParams({ ...query, ...state.model, a: byId("a").value, b: byId("b").value });
  const type = picture.type.startsWith("image/") ? picture.type : "application/octet-stream";
  const headers = { "Content-Type": type, Accept: accept };
  const options = { method: "POST", body: picture, headers, signal };
  return requestWithRetries(`v1/compare?${search}`, options, (problem, seconds) => {
    showProblem(`${problem.message}. Trying again in ${plural(seconds, "second")}.`);
  });
}

/** Whether picture, model and variants are those of the last answer. */
function isRepeated(picture, { model, a, b }) {
  if (picture !== state.picture || model !== state.answer.model) return false;
  return a.variant === state.answer.a.variant && b.variant === state.answer.b.variant;
}

function side(which) {
  const { variant } = state.answer[which];
  return { which, variant, series: seriesOf(state.variants, variant) };
}

/** Show the boxes above the slider's confidence, without a request. */
function render() {
  const conf = Number(byId("conf").value);
  byId("conf-value").textContent = conf.toFixed(2);
  if (state.answer === null) return;
  const shown = above(state.sides, conf);
  const matches = match(shown);
  const names = { a: state.answer.a.variant, b: state.answer.b.variant };
  const { image } = state.answer;
  drawSide(side("a"), { boxes: shown.a, unmatched: matches.onlyA, image, other: names.b });
  drawSide(side("b"), { boxes: shown.b, unmatched: matches.onlyB, image, other: names.a });
  listObjects(matches, names);
  byId("summary").textContent = summaryOf(matches, names);
}

function summaryOf({ matched, onlyA, onlyB }, names) {
  const count = matched.length + onlyA.length + onlyB.length;
  if (count === 0) return "No object has this confidence.";
  const parts = [`${plural(matched.length, "object")} in common`];
  if (onlyA.length) parts.push(`${onlyA.length} only in ${names.a}`);
  if (onlyB.length) parts.push(`${onlyB.length} only in ${names.b}`);
  if (count === matched.length) parts.push("no difference");
  const mean = matched.reduce((sum, { iou }) => sum + iou, 0) / matched.length;
  return parts.join(", ") + (matched.length ? `; mean overlap ${mean.toFixed(3)}.` : ".");
}

/** Both sides in one file, drawn by the server. */
async function savePicture() {
  const response = await post(state.picture, { conf: byId("conf").value }, "image/jpeg");
  await download(response, "qyolo.jpg");
}

/** A link cannot send the key: fetch its target with the key, and save it. */
function downloadWithKey(event) {
  if (!hasKey()) return;
  event.preventDefault();
  const { href, dataset } = event.currentTarget;
  attempt(async () => download(await request(href), dataset.savedAs));
}

async function download(response, name) {
  const url = URL.createObjectURL(await response.blob());
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // the download has begun by then
}

/** Run `work`; if it fails, show why. */
async function attempt(work) {
  showProblem("");
  try {
    await work();
    showProblem("");
  } catch (error) {
    if (error.name === "AbortError") return; // a newer request replaced it
    showProblem(error.message, RETRYABLE.includes(error.status) ? work : null);
  }
}

/** Show a text, with a button that runs `work` again if it is given; an empty text hides both. */
function showProblem(text, work = null) {
  const button = element("button", { type: "button" }, "Try again");
  button.addEventListener("click", () => attempt(work));
  byId("problem").replaceChildren(element("span", {}, text), ...(work === null ? [] : [button]));
  byId("problem").hidden = text === "";
}

function setBusy(on) {
  byId("trial").setAttribute("aria-busy", on);
}
