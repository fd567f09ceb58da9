// Live charts: the changes of /metrics, read every two seconds.

import { request } from "./api.js";
import { drawBars, drawLines } from "./charts.js";
import { byId, element, seriesOf } from "./dom.js";
import { counterIncrease, increaseOf, quantile, snapshot, total } from "./exposition.js";
import { ms } from "./format.js";

const INTERVAL_MS = 2000;
const SHOWN_MS = 180_000;
const WINDOW_MS = 10_000; // of each point of a line: between two scrapes there are few values
const STAGES = ["total", "infer", "queue", "decode", "preprocess", "postprocess"];

const state = {
  variants: [],
  model: undefined,
  scrapes: [],
  paused: false,
  stage: STAGES[0],
  started: false,
};

/** Show the charts of these variants of a model, undefined: of all; called again for another one,
 * and after the server was unreachable. */
export function startLive(variants, model) {
  if (model !== state.model) state.scrapes = [];
  Object.assign(state, { variants, model });
  byId("live").hidden = false;
  if (state.started) return;
  state.started = true;
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
  scrapeForever();
}

async function scrapeForever() {
  for (;;) {
    if (!state.paused && !document.hidden) await scrape();
    await new Promise((resolve) => setTimeout(resolve, INTERVAL_MS));
  }
}

async function scrape() {
  try {
    const answer = await request("metrics", { quiet: true, headers: { Accept: "text/plain" } });
    const now = snapshot(await answer.text(), Date.now(), state.model);
    const recent = ({ at }) => at >= now.at - SHOWN_MS - WINDOW_MS;
    state.scrapes = [...state.scrapes, now].filter(recent);
    const inFlight = now.inFlight - 1; // without this scrape
    byId("live-text").textContent = `From /metrics every two seconds. In flight: ${inFlight}.`;
  } catch (error) {
    byId("live-text").textContent = `/metrics: ${error.message}`;
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
    const increases = state.scrapes
      .map((now, index) => [now.at, recentIncrease(variant, state.stage, now, index)])
      .filter(([at]) => at >= times.from); // earlier ones are only compared with
    const line = (share) =>
      increases.map(([at, increase]) => [at, increase && quantile(increase, share)]);
    return [
      { series, dashed: false, points: line(0.5), name: variant },
      { series, dashed: true, points: line(0.99), name: variant },
    ];
  });
  const drawn = lines.filter(({ points }) => points.some(([, value]) => value !== null));
  const names = [...new Set(drawn.map(({ name }) => name))];
  const description = names.length
    ? `p50 and p99 of ${state.stage} by ${names.join(", ")}; the table below has the numbers`
    : "no pictures in the last three minutes";
  drawLines(byId("chart-latency"), { ...times, lines: drawn, description });
  const entries = state.variants.map((name) =>
    legendEntry(`series-${seriesOf(state.variants, name)}`, name),
  );
  entries.push(legendEntry("plain", "p50"), legendEntry("plain dashed", "p99"));
  byId("latency-legend").replaceChildren(...entries);
}

/** The increase of a histogram within the window that ends at a scrape; null without values. */
function recentIncrease(variant, stage, now, index) {
  const key = `${variant}|${stage}`;
  const histogram = now.stages.get(key);
  const earlier = state.scrapes.slice(0, index).find(({ at }) => at >= now.at - WINDOW_MS - 500);
  if (histogram === undefined || earlier === undefined) return null;
  const increase = increaseOf(histogram, earlier.stages.get(key));
  return total(increase) > 0 ? increase : null;
}

function drawRequests(times) {
  const totals = new Map();
  const shown = state.scrapes.filter(({ at }) => at >= times.from);
  const bars = shown.slice(1).map((now, index) => {
    const before = shown[index];
    const seconds = (now.at - before.at) / 1000;
    const parts = [...now.requests].map(([status, count]) => {
      const increase = counterIncrease(count, before.requests.get(status));
      totals.set(status, (totals.get(status) ?? 0) + increase);
      return { kind: `status-${status[0]}`, value: increase / seconds };
    });
    return { time: now.at, parts: parts.sort((one, other) => one.kind.localeCompare(other.kind)) };
  });
  const counted = [...totals].filter(([, count]) => count > 0).sort();
  const list = counted.map(([status, n]) => `${n} with ${status}`).join(", ");
  const description = list
    ? `requests of the last three minutes: ${list}`
    : "no requests in the last three minutes";
  drawBars(byId("chart-requests"), { ...times, bars, step: INTERVAL_MS, description });
  const entry = ([status, n]) => legendEntry(`status-${status[0]}`, `${status}: ${n}`);
  byId("requests-legend").replaceChildren(...counted.map(entry));
}

function legendEntry(classes, text) {
  return element("li", {}, element("span", { class: `swatch ${classes}` }), text);
}

function fillQuantiles() {
  const table = byId("quantiles");
  const column = { scope: "col", class: "number" };
  const heads = state.variants.map((name) => element("th", column, name));
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
  const increase = histogram && increaseOf(histogram, state.scrapes[0].stages.get(key));
  const hasValues = increase !== undefined && total(increase) > 0;
  const cells = hasValues ? [0.5, 0.99].map((share) => ms(quantile(increase, share))) : ["–"];
  return element("td", { class: "number" }, cells.join(" / "));
}
