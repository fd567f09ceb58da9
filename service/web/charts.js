// Two small charts in SVG: lines over time, and stacked bars over time. Both are drawn anew for
// every scrape; `from` and `to` are times in ms, colours are the classes of page.css. `words` tell
// a chart to who cannot see it, and to everybody where it is empty.

import { svg } from "./dom.js";

const HEIGHT = 190;
const EDGE = { top: 10, right: 10, bottom: 22, left: 40 };
const MOST_TICKS = 8;

/** lines: [{series, dashed, points: [[time, value or null]]}]; a null leaves a gap. */
export function drawLines(container, { lines, from, to, words }) {
  const values = lines.flatMap(({ points }) => points.map(([, value]) => value));
  const scale = logarithmic(values.filter((value) => value !== null));
  const frame = framed(container, { from, to, scale, words });
  for (const { series, dashed, points } of lines) {
    const path = pathOf(points, frame);
    const look = `line series-${series}${dashed ? " dashed" : ""}`;
    frame.root.append(svg("path", { class: look, d: path }));
  }
  if (lines.length === 0) frame.say(words);
}

/** bars: [{time, parts: [{kind, value}]}], each `step` ms wide and ending at its time. */
export function drawBars(container, { bars, step, from, to, words }) {
  const sums = bars.map(({ parts }) => parts.reduce((sum, { value }) => sum + value, 0));
  const highest = Math.max(...sums, 0);
  const frame = framed(container, { from, to, scale: linear(highest), words });
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
  if (highest === 0) frame.say(words);
}

/** A scale is {ticks, share}: where lines are drawn, and how high a value lies, 0 to 1. */
function linear(highest) {
  const steps = [1, 2, 3, 4, 6, 8, 10].map((step) => step * powerOf(highest || 1));
  const top = steps.find((step) => step >= highest);
  return { ticks: [0, top / 2, top], share: (value) => value / top };
}

/** One that shows 10 and 20 ms apart even where something took a second. */
function logarithmic(values) {
  if (values.length === 0) return linear(0);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const powers = [];
  for (let power = powerOf(least); power <= 10 * most; power *= 10) powers.push(power);
  const steps = powers.flatMap((power) => [power, 2 * power, 5 * power]);
  const low = steps.findLast((step) => step <= least);
  const high = steps.find((step) => step >= most && step > low);
  const within = (step) => step >= low && step <= high;
  const all = steps.filter(within);
  const ticks = all.length > MOST_TICKS ? powers.filter(within) : all;
  return { ticks, share: (value) => Math.log(value / low) / Math.log(high / low) };
}

function powerOf(value) {
  return 10 ** Math.floor(Math.log10(value));
}

function framed(container, { from, to, scale, words }) {
  const width = Math.max(container.clientWidth, 200);
  const [wide, high] = [width - EDGE.left - EDGE.right, HEIGHT - EDGE.top - EDGE.bottom];
  const x = (time) => EDGE.left + ((time - from) / (to - from)) * wide;
  const y = (value) => HEIGHT - EDGE.bottom - scale.share(value) * high;
  const root = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": words });
  for (const value of scale.ticks) {
    const at = y(value);
    const beside = { x: EDGE.left - 6, y: at + 4, "text-anchor": "end" };
    root.append(
      svg("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: at, y2: at }),
      svg("text", { class: "tick", ...beside }, String(Number(value.toPrecision(2)))),
    );
  }
  const minutes = Math.round((to - from) / 60_000);
  for (let ago = minutes; ago >= 0; ago -= 1) {
    const anchor = ago === 0 ? "end" : ago === minutes ? "start" : "middle";
    const said = ago === 0 ? "now" : `${ago} min ago`;
    const at = { x: x(to - ago * 60_000), y: HEIGHT - 5, "text-anchor": anchor };
    root.append(svg("text", { class: "tick", ...at }, said));
  }
  container.replaceChildren(root);
  const middle = { x: (width + EDGE.left) / 2, y: HEIGHT / 2 - 18, "text-anchor": "middle" };
  const say = (text) => root.append(svg("text", { class: "tick", ...middle }, text));
  return { root, x, y, say };
}

/** A move to each first point after a gap, a line to each other; a lone point is a dot. */
function pathOf(points, { x, y }) {
  let drawing = false;
  return points
    .map(([time, value]) => {
      if (value === null) {
        drawing = false;
        return "";
      }
      const at = `${x(time).toFixed(1)} ${y(value).toFixed(1)}`;
      const step = drawing ? `L${at}` : `M${at}h0.01`; // with round ends, a dot
      drawing = true;
      return step;
    })
    .join("");
}
