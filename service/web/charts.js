// Two charts in SVG: lines and stacked bars over time, drawn again after each scrape. By hand,
// because a library would have to be committed: the page loads nothing from elsewhere. `from` and
// `to` are times in ms; `description` is for screen readers, and is shown in an empty chart.

import { svg } from "./dom.js";

const HEIGHT = 190;
const MARGIN = { top: 10, right: 10, bottom: 22, left: 40 };
const MAX_TICKS = 8;

/** lines: [{series, dashed, points: [[time, value or null]]}]; a null leaves a gap. */
export function drawLines(container, { lines, from, to, description }) {
  const values = lines.flatMap(({ points }) => points.map(([, value]) => value));
  const scale = logarithmic(values.filter((value) => value !== null));
  const frame = drawFrame(container, { from, to, scale, description });
  for (const { series, dashed, points } of lines) {
    const path = pathOf(points, frame);
    const classes = `line series-${series}${dashed ? " dashed" : ""}`;
    frame.root.append(svg("path", { class: classes, d: path }));
  }
  if (lines.length === 0) frame.write(description);
}

/** bars: [{time, parts: [{kind, value}]}], each `step` ms wide and ending at its time. */
export function drawBars(container, { bars, step, from, to, description }) {
  const sums = bars.map(({ parts }) => parts.reduce((sum, { value }) => sum + value, 0));
  const highest = Math.max(...sums, 0);
  const frame = drawFrame(container, { from, to, scale: linear(highest), description });
  const width = Math.max(frame.x(from + step) - frame.x(from) - 1, 1);
  for (const { time, parts } of bars) {
    let below = 0;
    for (const { kind, value } of parts) {
      const y = frame.y(below + value);
      const height = frame.y(below) - y;
      const x = frame.x(time) - width;
      if (value > 0) frame.root.append(svg("rect", { class: `fill ${kind}`, x, y, width, height }));
      below += value;
    }
  }
  if (highest === 0) frame.write(description);
}

/** A scale is {ticks, share}: the values of the grid lines, and the height of a value, 0 to 1. */
function linear(highest) {
  const steps = [1, 2, 3, 4, 6, 8, 10].map((step) => step * powerOf(highest || 1));
  const top = steps.find((step) => step >= highest);
  return { ticks: [0, top / 2, top], share: (value) => value / top };
}

/** Keeps 10 and 20 ms apart in a chart that also shows a second. */
function logarithmic(values) {
  if (values.length === 0) return linear(0);
  const [lowest, highest] = [Math.min(...values), Math.max(...values)];
  const powers = [];
  for (let power = powerOf(lowest); power <= 10 * highest; power *= 10) powers.push(power);
  const steps = powers.flatMap((power) => [power, 2 * power, 5 * power]);
  const low = steps.findLast((step) => step <= lowest);
  const high = steps.find((step) => step >= highest && step > low);
  const within = (step) => step >= low && step <= high;
  const all = steps.filter(within);
  const ticks = all.length > MAX_TICKS ? powers.filter(within) : all;
  return { ticks, share: (value) => Math.log(value / low) / Math.log(high / low) };
}

function powerOf(value) {
  return 10 ** Math.floor(Math.log10(value));
}

function drawFrame(container, { from, to, scale, description }) {
  const width = Math.max(container.clientWidth, 200);
  const [wide, high] = [width - MARGIN.left - MARGIN.right, HEIGHT - MARGIN.top - MARGIN.bottom];
  const x = (time) => MARGIN.left + ((time - from) / (to - from)) * wide;
  const y = (value) => HEIGHT - MARGIN.bottom - scale.share(value) * high;
  const viewBox = `0 0 ${width} ${HEIGHT}`;
  const root = svg("svg", { viewBox, role: "img", "aria-label": description });
  for (const value of scale.ticks) {
    const at = y(value);
    const place = { x: MARGIN.left - 6, y: at + 4, "text-anchor": "end" };
    root.append(
      svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: at, y2: at }),
      svg("text", { class: "tick", ...place }, String(Number(value.toPrecision(2)))),
    );
  }
  const minutes = Math.round((to - from) / 60_000);
  for (let ago = minutes; ago >= 0; ago -= 1) {
    const anchor = ago === 0 ? "end" : ago === minutes ? "start" : "middle";
    const label = ago === 0 ? "now" : `${ago} min ago`;
    const at = { x: x(to - ago * 60_000), y: HEIGHT - 5, "text-anchor": anchor };
    root.append(svg("text", { class: "tick", ...at }, label));
  }
  container.replaceChildren(root);
  const middle = { x: (width + MARGIN.left) / 2, y: HEIGHT / 2 - 18, "text-anchor": "middle" };
  const write = (text) => root.append(svg("text", { class: "tick", ...middle }, text));
  return { root, x, y, write };
}

/** An SVG path with gaps where the value is null; a point between two gaps is a dot. */
function pathOf(points, { x, y }) {
  const steps = points.map(([time, value], index) => {
    if (value === null) return "";
    const at = `${x(time).toFixed(1)} ${y(value).toFixed(1)}`;
    const isFirst = index === 0 || points[index - 1][1] === null;
    return isFirst ? `M${at}h0.01` : `L${at}`; // round line ends make a lone point a dot
  });
  return steps.join("");
}
