// What was compared, in numbers: the objects of both sides, and the time of each stage.

import { byId, element } from "./dom.js";
import { pointAt } from "./panels.js";
import { ms } from "./words.js";

const STAGES = ["decode", "preprocess", "queue", "infer", "postprocess", "total"];

/** Name the two columns of both tables. */
export function nameSides(names) {
  for (const cell of document.querySelectorAll("th[data-side]")) {
    cell.textContent = names[cell.dataset.side];
  }
}

/** One row for each object: those of one side first, then by score. */
export function listObjects({ matched, onlyA, onlyB }, names) {
  const alone = [
    ...onlyA.map((a) => ({ a, b: null, iou: null })),
    ...onlyB.map((b) => ({ a: null, b, iou: null })),
  ];
  const byScore = (one, other) => best(other) - best(one);
  const objects = [...alone.sort(byScore), ...[...matched].sort(byScore)];
  byId("objects").tBodies[0].replaceChildren(...objects.map((object) => objectRow(object, names)));
  byId("objects").hidden = objects.length === 0;
  byId("objects-none").hidden = objects.length > 0;
}

function best({ a, b }) {
  return Math.max(a?.score ?? 0, b?.score ?? 0);
}

function objectRow(object, names) {
  const { a, b, iou } = object;
  const button = element("button", { type: "button", class: "link" }, (a ?? b).class_name);
  const row = element(
    "tr",
    { class: iou === null ? "alone" : null },
    element("th", { scope: "row" }, button),
    element("td", { class: "n" }, a ? a.score.toFixed(3) : "–"),
    element("td", { class: "n" }, b ? b.score.toFixed(3) : "–"),
    element("td", { class: "n" }, iou === null ? `only ${a ? names.a : names.b}` : iou.toFixed(3)),
  );
  row.addEventListener("pointerenter", () => pointAt(object));
  row.addEventListener("pointerleave", () => pointAt(null));
  row.addEventListener("focusin", () => pointAt(object));
  row.addEventListener("focusout", () => pointAt(null));
  return row;
}

/** The time of each stage on both sides, as numbers and as bars; each the median of its runs. */
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
  const many = runs.length > 1;
  const source = many ? `Medians of ${runs.length} runs.` : "One run; more are steadier.";
  byId("speed").textContent = `${speed(...sides)} ${source}`;
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
  return element("td", { class: "n" }, ms(value), element("span", { class: "track" }, bar));
}

/** Which engine is faster on this picture, and by how much. */
function speed(a, b) {
  if (a.variant === b.variant) return "Both sides are the same variant.";
  const [fast, slow] = a.timings.infer <= b.timings.infer ? [a, b] : [b, a];
  const times = slow.timings.infer / fast.timings.infer;
  const share = times < 1.05 ? "as fast as" : `${times.toFixed(1)} times as fast as`;
  return `${fast.variant} infers ${share} ${slow.variant} here.`;
}
