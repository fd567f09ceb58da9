// The picture twice, with the boxes of each side.

import { byId, element } from "./dom.js";
import { plural } from "./format.js";

const SIDES = { a: byId("panel-a"), b: byId("panel-b") };

/** Show a picture (a Blob) on both sides; resolves when it is visible. */
export async function showPicture(blob, { width, height }) {
  const pictures = Object.values(SIDES).map((panel) => panel.querySelector("img"));
  const [old, url] = [pictures[0].src, URL.createObjectURL(blob)];
  for (const picture of pictures) Object.assign(picture, { src: url, width, height });
  // The server reads formats that a browser may not; the boxes are then shown without a picture.
  await Promise.allSettled(pictures.map((picture) => picture.decode()));
  URL.revokeObjectURL(old);
}

/** Draw the boxes of one side; those in `unmatched` are not on the other side. */
export function drawSide({ which, variant, series }, { boxes, unmatched, image, other }) {
  const panel = SIDES[which];
  panel.querySelector("figcaption").replaceChildren(
    element("span", { class: `chip series-${series}` }, variant),
    element("span", { class: "muted" }, plural(boxes.length, "object")),
  );
  if (unmatched.length > 0) {
    const mark = element("span", { class: "mark" }, `${unmatched.length} not in ${other}`);
    panel.querySelector("figcaption").append(mark);
  }
  const count = plural(boxes.length, "box", "boxes");
  panel.querySelector("img").alt = `The picture with ${count} by ${variant}`;
  // The best box on top of the matched ones, and the unmatched ones on top of all.
  const dashed = new Set(unmatched);
  const order = [...boxes].reverse().sort((one, other) => dashed.has(one) - dashed.has(other));
  const nodes = order.map((box) => boxNode(image, box, dashed.has(box)));
  panel.querySelector(".boxes").replaceChildren(...nodes);
}

/** Highlight the boxes of one object on both sides; null ends it. */
export function highlight(object) {
  for (const node of document.querySelectorAll(".box")) {
    const highlighted = object !== null && [object.a, object.b].includes(node.source);
    node.classList.toggle("highlighted", highlighted);
    node.classList.toggle("dimmed", object !== null && !highlighted);
  }
}

function boxNode({ width, height }, source, unmatched) {
  const [x1, y1, x2, y2] = source.box;
  const label = element("span", {}, `${source.class_name} ${source.score.toFixed(2)}`);
  const node = element("div", { class: `box ${unmatched ? "unmatched" : "matched"}` }, label);
  Object.assign(node.style, {
    left: `${(100 * x1) / width}%`,
    top: `${(100 * y1) / height}%`,
    width: `${(100 * (x2 - x1)) / width}%`,
    height: `${(100 * (y2 - y1)) / height}%`,
  });
  node.classList.toggle("at-top", y1 < 0.08 * height); // no room for the label above
  node.classList.toggle("at-right", x1 > 0.7 * width);
  node.source = source;
  return node;
}
