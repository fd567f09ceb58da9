// Tables of the comparison: the objects of both sides, and the time of each stage.

import { byId, element } from "./dom.js";
import { ms } from "./format.js";
import { highlight } from "./panels.js";

const STAGES = ["decode", "preprocess", "queue", "infer", "postprocess", "total"];

/** Name the two columns of both tables. */
export function nameSides(names) {
  for (const cell of document.querySelectorAll("th[data-side]")) {
    cell.textContent = names[cell.dataset.side];
  }
}

/** One row for each object: unmatched ones first, then by score. */
export function listObjects({ matched, onlyA, onlyB }, names) {
  const unmatched = [
    ...onlyA.map((a) => ({ a, b: null, iou: null })),
    ...onlyB.map((b) => ({ a: null, b, iou: null })),
  ];
  const byScore = (one, other) => best(other) - best(one);
  const objects = [...unmatched.sort(byScore), ...[...matched].sort(byScore)];
  byId("objects").tBodies[0].replaceChildren(...objects.map((object) => objectRow(object, names)));
  byId("objects").hidden = objects.length === 0;
  byId("objects-none").hidden = objects.length > 0;
}

function best({ a, b }) {
  return Math.max(a?.score ?? 0, b?.score ?? 0);
}

function objectRow(object, names) {
  const { a, b, iou } = object;
  const overlap = iou === null ? `only ${a ? names.a : names.b}` : iou.toFixed(3);
  const button = element("button", { type: "button", class: "link" }, (a ?? b).class_name);
  const row = element(
    "tr",
    { class: iou === null ? "unmatched" : null },
    element("th", { scope: "row" }, button),
    element("td", { class: "number" }, a ? a.score.toFixed(3) : "–"),
    element("td", { class: "number" }, b ? b.score.toFixed(3) : "–"),
    element("td", { class: "number" }, overlap),
  );
  row.addEventListener("pointerenter", () => highlight(object));
  row.addEventListener("pointerleave", () => highlight(null));
  row.addEventListener("focusin", () => highlight(object));
  row.addEventListener("focusout", () => highlight(null));
  return row;
}

/** The time of each stage on both sides, as numbers and bars: medians over all runs. */
export function showLatency(a, b, runs) {
  const sides = [a, b].map((side) => ({ ...side, timings: medians(side.which, runs) }));
  const longest = Math.max(...sides.map(({ timings }) => timings.total));
  const rows = STAGES.map((stage) =>
    element(
      "tr",
      { class: stage === "total" ? "total" : null },
      element("th", { scope: "row" }, stage),
      ...sides.map((side) => timeCell(side, stage, longest)),
    ),
  );
  byId("latency").tBodies[0].replaceChildren(...rows);
  const source = runs.length > 1 ? `Medians of ${runs.length} runs.` : "One run.";
  byId("speed").textContent = `${compareSpeed(...sides)} ${source}`;
}

function medians(which, runs) {
  const median = (stage) => {
    const values = runs.map((run) => run[which].timings_ms[stage] ?? 0).sort((x, y) => x - y);
    return (values[(values.length - 1) >> 1] + values[values.length >> 1]) / 2;
  };
  return Object.fromEntries(STAGES.map((stage) => [stage, median(stage)]));
}

function timeCell({ timings, series }, stage, longest) {
  const value = timings[stage];
  const bar = element("span", { class: `bar series-${series}` });
  bar.style.width = `${(100 * value) / longest}%`;
  return element("td", { class: "number" }, ms(value), element("span", { class: "track" }, bar));
}

/** Which engine is faster on this picture, and by how much. */
function compareSpeed(a, b) {
  if (a.variant === b.variant) return "Both sides are the same variant.";
  const [fast, slow] = a.timings.infer <= b.timings.infer ? [a, b] : [b, a];
  const times = slow.timings.infer / fast.timings.infer;
  const share = times < 1.05 ? "as fast as" : `${times.toFixed(1)} times as fast as`;
  return `${fast.variant} infers ${share} ${slow.variant} here.`;
}
