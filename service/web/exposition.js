// The text of /metrics -> what the charts need. Histograms are {edges, counts}: the upper edges in
// seconds and how many values lie at or below each.

const SAMPLE = /^(\w+)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;
// What this page, a probe or a scraper asks for all the time would hide what others ask for.
const OURS = new Set([
  ...["/", "/docs", "/page/{name}", "/openapi.json", "/metrics"],
  ...["/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"],
]);

/** One scrape: histograms by "variant|stage", requests by status, requests being answered. */
export function snapshot(text, at) {
  const stages = new Map();
  const requests = new Map();
  let inFlight = 0;
  for (const { name, labels, value } of samples(text)) {
    if (name === "qyolo_stage_duration_seconds_bucket") {
      const edge = Number(labels.le.replace("+Inf", "Infinity"));
      count(stages, `${labels.variant}|${labels.stage}`, edge, value);
    } else if (name === "qyolo_http_requests_total" && !OURS.has(labels.route)) {
      requests.set(labels.status, (requests.get(labels.status) ?? 0) + value);
    } else if (name === "qyolo_requests_in_flight") {
      inFlight = value;
    }
  }
  return { at, stages, requests, inFlight };
}

function* samples(text) {
  for (const line of text.split("\n")) {
    const found = line.startsWith("#") ? null : SAMPLE.exec(line);
    if (found === null) continue;
    const labels = {};
    for (const [, key, raw] of (found[2] ?? "").matchAll(LABEL)) {
      labels[key] = raw.replace(/\\(.)/g, (_, mark) => (mark === "n" ? "\n" : mark));
    }
    yield { name: found[1], labels, value: Number(found[3]) };
  }
}

function count(stages, key, edge, value) {
  if (!stages.has(key)) stages.set(key, { edges: [], counts: [] });
  const { edges, counts } = stages.get(key);
  const place = edges.indexOf(edge); // the same bucket of another device is added
  if (place < 0) {
    edges.push(edge);
    counts.push(value);
  } else {
    counts[place] += value;
  }
}

/** What a histogram gained since an earlier scrape; a server that began anew counts from 0. */
export function gained(now, before) {
  if (before === undefined || total(now) < total(before)) return now;
  const counts = now.counts.map((value, index) => value - before.counts[index]);
  return { edges: now.edges, counts };
}

/** What a counter gained, likewise. */
export function rise(now = 0, before = 0) {
  return now < before ? now : now - before;
}

export function total(histogram) {
  return histogram.counts.at(-1) ?? 0;
}

/** A quantile in ms, within its bucket in proportion, as Prometheus does; null without values. */
export function quantile(histogram, share) {
  const { edges, counts } = histogram;
  const rank = share * total(histogram);
  if (rank === 0) return null;
  const index = counts.findIndex((value) => value >= rank);
  const low = index === 0 ? 0 : edges[index - 1];
  if (edges[index] === Infinity) return low * 1000;
  const below = index === 0 ? 0 : counts[index - 1];
  return (low + ((edges[index] - low) * (rank - below)) / (counts[index] - below)) * 1000;
}
