// The charts: /metrics every two seconds, and what changed since earlier scrapes.

import { ask } from "./api.js";
import { drawBars, drawLines } from "./charts.js";
import { byId, element, seriesOf } from "./dom.js";
import { gained, quantile, rise, snapshot, total } from "./exposition.js";
import { ms } from "./words.js";

const EVERY_MS = 2000;
const SHOWN_MS = 180_000;
const WINDOW_MS = 10_000; // each point of a line is over this long: one scrape holds too few values
const STAGES = ["total", "infer", "queue", "decode", "preprocess", "postprocess"];
const SOURCE = "Everything this server answers, from /metrics every two seconds.";

const state = { variants: [], scrapes: [], paused: false, stage: STAGES[0], begun: false };

/** Show the charts of these variants, from now on; called again when the server came back. */
export function startLive(variants) {
  state.variants = variants;
  byId("live").hidden = false;
  if (state.begun) return;
  state.begun = true;
  byId("stage").replaceChildren(...STAGES.map((name) => element("option", {}, name)));
  byId("stage").addEventListener("change", () => {
    state.stage = byId("stage").value;
    draw();
  });
  byId("pause").addEventListener("click", () => {
    state.paused = !state.paused;
    byId("pause").setAttribute("aria-pressed", state.paused);
  });
  new ResizeObserver(draw).observe(byId("chart-latency"));
  scrapeForEver();
}

async function scrapeForEver() {
  for (;;) {
    if (!state.paused && !document.hidden) await scrape();
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
}

async function scrape() {
  try {
    const answer = await ask("metrics", { quiet: true, headers: { Accept: "text/plain" } });
    const now = snapshot(await answer.text(), Date.now());
    const recent = ({ at }) => at >= now.at - SHOWN_MS - WINDOW_MS;
    state.scrapes = [...state.scrapes, now].filter(recent);
    byId("live-words").textContent = `${SOURCE} In the house now: ${now.inFlight - 1}.`;
  } catch (error) {
    byId("live-words").textContent = `/metrics: ${error.message}`;
  }
  draw();
}

function draw() {
  if (state.scrapes.length === 0) return;
  const to = state.scrapes.at(-1).at;
  const times = { from: to - SHOWN_MS, to };
  drawLatency(times);
  drawRequests(times);
  fillQuantiles();
}

function drawLatency(times) {
  const lines = state.variants.flatMap((variant) => {
    const series = seriesOf(state.variants, variant);
    const found = state.scrapes
      .map((now, index) => [now.at, over(variant, state.stage, now, index)])
      .filter(([at]) => at >= times.from); // what is older is compared with only
    const line = (share) => found.map(([at, values]) => [at, values && quantile(values, share)]);
    return [
      { series, dashed: false, points: line(0.5), name: variant },
      { series, dashed: true, points: line(0.99), name: variant },
    ];
  });
  const seen = lines.filter(({ points }) => points.some(([, value]) => value !== null));
  const names = [...new Set(seen.map(({ name }) => name))];
  const words = names.length
    ? `p50 and p99 of ${state.stage} by ${names.join(", ")}; the table below has the numbers`
    : "no picture in the last three minutes";
  drawLines(byId("chart-latency"), { ...times, lines: seen, words });
  const entries = state.variants.map((name) =>
    legendEntry(`series-${seriesOf(state.variants, name)}`, name),
  );
  entries.push(legendEntry("plain", "p50"), legendEntry("plain dashed", "p99"));
  byId("latency-legend").replaceChildren(...entries);
}

/** What the histogram gained within the window that ends with a scrape; null if nothing. */
function over(variant, stage, now, index) {
  const key = `${variant}|${stage}`;
  const histogram = now.stages.get(key);
  const earlier = state.scrapes.slice(0, index).find(({ at }) => at >= now.at - WINDOW_MS - 500);
  if (histogram === undefined || earlier === undefined) return null;
  const gain = gained(histogram, earlier.stages.get(key));
  return total(gain) > 0 ? gain : null;
}

function drawRequests(times) {
  const totals = new Map();
  const shown = state.scrapes.filter(({ at }) => at >= times.from);
  const bars = shown.slice(1).map((now, index) => {
    const before = shown[index];
    const seconds = (now.at - before.at) / 1000;
    const parts = [...now.requests].map(([status, count]) => {
      const gain = rise(count, before.requests.get(status));
      totals.set(status, (totals.get(status) ?? 0) + gain);
      return { kind: `status-${status[0]}`, value: gain / seconds };
    });
    return { time: now.at, parts: parts.sort((one, other) => one.kind.localeCompare(other.kind)) };
  });
  const counted = [...totals].filter(([, count]) => count > 0).sort();
  const told = counted.map(([status, n]) => `${n} with ${status}`).join(", ");
  const words = told
    ? `requests of the last three minutes: ${told}`
    : "no requests in the last three minutes";
  drawBars(byId("chart-requests"), { ...times, bars, step: EVERY_MS, words });
  const entry = ([status, n]) => legendEntry(`status-${status[0]}`, `${status}: ${n}`);
  byId("requests-legend").replaceChildren(...counted.map(entry));
}

function legendEntry(look, text) {
  return element("li", {}, element("span", { class: `swatch ${look}` }), text);
}

function fillQuantiles() {
  const table = byId("quantiles");
  const heads = state.variants.map((name) => element("th", { scope: "col", class: "n" }, name));
  const head = element("tr", {}, element("th", { scope: "col" }, "Stage"), ...heads);
  table.tHead.replaceChildren(head);
  const rows = STAGES.map((stage) => {
    const cells = state.variants.map((variant) => quantileCell(variant, stage));
    return element("tr", {}, element("th", { scope: "row" }, stage), ...cells);
  });
  table.tBodies[0].replaceChildren(...rows);
}

function quantileCell(variant, stage) {
  const key = `${variant}|${stage}`;
  const histogram = state.scrapes.at(-1).stages.get(key);
  const gain = histogram && gained(histogram, state.scrapes[0].stages.get(key));
  const seen = gain !== undefined && total(gain) > 0;
  const both = seen ? [0.5, 0.99].map((share) => ms(quantile(gain, share))) : ["–"];
  return element("td", { class: "n" }, both.join(" / "));
}
