// Parses /metrics for the charts. A histogram is {edges, counts}: the upper edges of its buckets in
// seconds, and the cumulative counts.

const SAMPLE = /^(\w+)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;
// Not counted: this page, probes and scrapers request these all the time.
const IGNORED_ROUTES = new Set([
  ...["/", "/docs", "/page/{name}", "/openapi.json", "/metrics"],
  ...["/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"],
]);

/** One scrape: histograms by "variant|stage", of one model if it is given; requests by status, and
 * those in flight, of all. */
export function snapshot(text, at, model) {
  const stages = new Map();
  const requests = new Map();
  let inFlight = 0;
  for (const { name, labels, value } of samples(text)) {
    if (name === "qyolo_stage_duration_seconds_bucket") {
      if (model !== undefined && labels.model !== model) continue;
      const edge = Number(labels.le.replace("+Inf", "Infinity"));
      addBucket(stages, `${labels.variant}|${labels.stage}`, edge, value);
    } else if (name === "qyolo_http_requests_total" && !IGNORED_ROUTES.has(labels.route)) {
      requests.set(labels.status, (requests.get(labels.status) ?? 0) + value);
    } else if (name === "qyolo_requests_in_flight") {
      inFlight = value;
    }
  }
  return { at, stages, requests, inFlight };
}

function* samples(text) {
  for (const line of text.split("\n")) {
    const sample = line.startsWith("#") ? null : SAMPLE.exec(line);
    if (sample === null) continue;
    const labels = {};
    for (const [, key, raw] of (sample[2] ?? "").matchAll(LABEL)) {
      labels[key] = raw.replace(/\\(.)/g, (_, mark) => (mark === "n" ? "\n" : mark));
    }
    yield { name: sample[1], labels, value: Number(sample[3]) };
  }
}

function addBucket(stages, key, edge, value) {
  if (!stages.has(key)) stages.set(key, { edges: [], counts: [] });
  const { edges, counts } = stages.get(key);
  const index = edges.indexOf(edge);
  if (index < 0) {
    edges.push(edge);
    counts.push(value);
  } else {
    counts[index] += value; // of another device
  }
}

/** The increase of a histogram since an earlier scrape; a restarted server counts from 0. */
export function increaseOf(now, before) {
  if (before === undefined || total(now) < total(before)) return now;
  const counts = now.counts.map((value, index) => value - before.counts[index]);
  return { edges: now.edges, counts };
}

/** The same for a counter. */
export function counterIncrease(now = 0, before = 0) {
  return now < before ? now : now - before;
}

export function total(histogram) {
  return histogram.counts.at(-1) ?? 0;
}

/** A quantile in ms, interpolated within its bucket as Prometheus does; null without values. */
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
