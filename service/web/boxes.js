// Matches the boxes of two sides, by the rule of service/vision/agreement.py: the slider then needs
// no request. A box is {box: [x1, y1, x2, y2], score, class_id, class_name}.

const MATCH_IOU = 0.5;

/** All boxes of both sides of a /v1/compare answer, best first. */
export function sidesOf(answer) {
  const side = (which) => {
    const matched = answer.matched.map((pair) => ({
      box: pair[`box_${which}`],
      score: pair[`score_${which}`],
      class_id: pair.class_id,
      class_name: pair.class_name,
    }));
    return [...matched, ...answer[`only_${which}`]].sort((one, other) => other.score - one.score);
  };
  return { a: side("a"), b: side("b") };
}

/** The boxes above a score. NMS gives the same ones: weaker boxes never suppress stronger ones. */
export function above(sides, conf) {
  const isAbove = (box) => box.score > conf;
  return { a: sides.a.filter(isAbove), b: sides.b.filter(isAbove) };
}

/** Pairs of boxes of one class, highest IoU first, each box at most once; and the other boxes. */
export function match({ a, b }) {
  const candidates = a.flatMap((one) =>
    b
      .filter((other) => other.class_id === one.class_id)
      .map((other) => ({ a: one, b: other, iou: iou(one.box, other.box) }))
      .filter((pair) => pair.iou >= MATCH_IOU),
  );
  candidates.sort((one, other) => other.iou - one.iou);
  const taken = new Set();
  const matched = candidates.filter((pair) => {
    const free = !taken.has(pair.a) && !taken.has(pair.b);
    if (free) taken.add(pair.a).add(pair.b);
    return free;
  });
  const unmatched = (box) => !taken.has(box);
  return { matched, onlyA: a.filter(unmatched), onlyB: b.filter(unmatched) };
}

function iou(one, other) {
  const width = Math.min(one[2], other[2]) - Math.max(one[0], other[0]);
  const height = Math.min(one[3], other[3]) - Math.max(one[1], other[1]);
  const shared = Math.max(width, 0) * Math.max(height, 0);
  const union = area(one) + area(other) - shared;
  return union > 0 ? shared / union : 0;
}

function area([x1, y1, x2, y2]) {
  return Math.max(x2 - x1, 0) * Math.max(y2 - y1, 0);
}
