// The page: a picture comes in, two variants see it, both answers are shown.

import { ask, askPatiently } from "./api.js";
import { above, agree, sidesOf } from "./boxes.js";
import { offerCamera } from "./camera.js";
import { byId, element, seriesOf } from "./dom.js";
import { receive } from "./intake.js";
import { hasKey } from "./key.js";
import { startLive } from "./live.js";
import { drawSide, showPicture } from "./panels.js";
import { watch } from "./readiness.js";
import { listObjects, nameSides, showLatency } from "./tables.js";
import { plural } from "./words.js";

const LOWEST_CONF = byId("conf").min; // asked for once; the slider filters what came

const RETRY_HELPS = [0, 401, 408, 429, 500, 503, 504];

const state = {
  variants: [],
  early: null, // a picture that came before the server was ready
  picture: null,
  answer: null,
  sides: null,
  runs: [], // the answers to this picture by these two variants, for the medians of their times
  asking: null,
};

watch((caveat) => {
  byId("caveat").textContent = caveat;
  byId("caveat").hidden = caveat === "";
  attempt(meet);
});
receive(take);
offerCamera(take);
for (const side of ["a", "b"]) byId(side).addEventListener("change", again);
byId("conf").addEventListener("input", render);
byId("again").addEventListener("click", again);
byId("save").addEventListener("click", () => attempt(save));
for (const link of document.querySelectorAll("a[data-saved-as]")) {
  link.addEventListener("click", follow);
}

/** Learn which model and which variants there are, and ask them if a picture is here already. */
async function meet() {
  const model = await (await ask("v1/models")).json();
  byId("model").textContent = `${model.model}, ${model.device}, ${model.size}×${model.size}`;
  document.title = `qyolo: ${model.model}`;
  state.variants = model.variants.map(({ name }) => name);
  const marks = new Map(model.variants.map((variant) => [variant.name, markOf(variant)]));
  for (const [id, preferred] of [["a", "fp32"], ["b", "int8"]]) {
    const known = (name) => state.variants.includes(name);
    const wanted = [byId(id).value, preferred, model.default].find(known);
    const options = state.variants.map((name) =>
      element("option", { value: name, selected: name === wanted }, name + marks.get(name)),
    );
    byId(id).replaceChildren(...options);
  }
  byId("trial").hidden = false;
  startLive(state.variants);
  const { early } = state;
  state.early = null;
  if (early !== null) await compare(early);
}

function markOf(variant) {
  if (variant.rejected !== null) return " (rejected)";
  return variant.default ? " (default)" : "";
}

function take(file) {
  if (byId("trial").hidden) {
    state.early = file;
    tell("The picture is kept here until the server is ready.");
  } else {
    attempt(() => compare(file));
  }
}

function again() {
  if (state.picture !== null) attempt(() => compare(state.picture));
}

/** Send a picture to both variants and show what they saw. */
async function compare(picture) {
  state.asking?.abort();
  state.asking = new AbortController();
  const { signal } = state.asking;
  busy(true);
  try {
    const told = await post(picture, { conf: LOWEST_CONF }, "application/json", signal);
    const answer = await told.json();
    if (picture !== state.picture) await showPicture(picture, answer.image);
    signal.throwIfAborted();
    const runs = isSame(picture, answer) ? [...state.runs, answer] : [answer];
    Object.assign(state, { picture, answer, sides: sidesOf(answer), runs });
    byId("result").hidden = false;
    byId("drop").classList.add("small");
    nameSides({ a: answer.a.variant, b: answer.b.variant });
    showLatency(side("a"), side("b"), runs);
    render();
  } finally {
    if (!signal.aborted) busy(false);
  }
}

function post(picture, query, accept, signal) {
  const search = new URLSearchParams({ ...query, a: byId("a").value, b: byId("b").value });
  const type = picture.type.startsWith("image/") ? picture.type : "application/octet-stream";
  const headers = { "Content-Type": type, Accept: accept };
  const options = { method: "POST", body: picture, headers, signal };
  return askPatiently(`v1/compare?${search}`, options, (problem, seconds) => {
    tell(`${problem.message}. Trying again in ${plural(seconds, "second")}.`);
  });
}

/** Whether an answer is to the question that was asked last. */
function isSame(picture, { a, b }) {
  if (picture !== state.picture) return false;
  return a.variant === state.answer.a.variant && b.variant === state.answer.b.variant;
}

function side(which) {
  const { variant } = state.answer[which];
  return { which, variant, series: seriesOf(state.variants, variant) };
}

/** Show the boxes above the slider's confidence: no request, so it follows the hand. */
function render() {
  const conf = Number(byId("conf").value);
  byId("conf-value").textContent = conf.toFixed(2);
  if (state.answer === null) return;
  const shown = above(state.sides, conf);
  const agreement = agree(shown);
  const names = { a: state.answer.a.variant, b: state.answer.b.variant };
  const { image } = state.answer;
  drawSide(side("a"), { boxes: shown.a, alone: agreement.onlyA, image, other: names.b });
  drawSide(side("b"), { boxes: shown.b, alone: agreement.onlyB, image, other: names.a });
  listObjects(agreement, names);
  byId("summary").textContent = inWords(agreement, names);
}

function inWords({ matched, onlyA, onlyB }, names) {
  const count = matched.length + onlyA.length + onlyB.length;
  if (count === 0) return "Nothing is seen at this confidence.";
  const parts = [`${plural(matched.length, "object")} in common`];
  if (onlyA.length) parts.push(`${onlyA.length} only in ${names.a}`);
  if (onlyB.length) parts.push(`${onlyB.length} only in ${names.b}`);
  if (count === matched.length) parts.push("no difference");
  const mean = matched.reduce((sum, { iou }) => sum + iou, 0) / matched.length;
  return parts.join(", ") + (matched.length ? `; mean overlap ${mean.toFixed(3)}.` : ".");
}

/** The picture as the server draws it, both sides in one file. */
async function save() {
  const answer = await post(state.picture, { conf: byId("conf").value }, "image/jpeg");
  await keep(answer, "qyolo.jpg");
}

/** A link carries no key: what it leads to is then fetched with the key, and saved. */
function follow(event) {
  if (!hasKey()) return;
  event.preventDefault();
  const { href, dataset } = event.currentTarget;
  attempt(async () => keep(await ask(href), dataset.savedAs));
}

async function keep(answer, name) {
  const url = URL.createObjectURL(await answer.blob());
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // the download has begun by then
}

/** Do something that may fail; say why if it does. */
async function attempt(work) {
  tell("");
  try {
    await work();
    tell("");
  } catch (error) {
    if (error.name === "AbortError") return; // a newer question took its place
    tell(error.message, RETRY_HELPS.includes(error.status) ? work : null);
  }
}

/** Say what is wrong, with a button where another try may help; nothing is wrong without words. */
function tell(words, work = null) {
  const button = element("button", { type: "button" }, "Try again");
  button.addEventListener("click", () => attempt(work));
  byId("problem").replaceChildren(element("span", {}, words), ...(work === null ? [] : [button]));
  byId("problem").hidden = words === "";
}

function busy(on) {
  byId("trial").setAttribute("aria-busy", on);
}
