// The picture twice, with the boxes of one side on each.

import { byId, element } from "./dom.js";
import { plural } from "./words.js";

const SIDES = { a: byId("panel-a"), b: byId("panel-b") };

/** Show a picture (a Blob) on both sides; resolved when it can be seen. */
export async function showPicture(blob, { width, height }) {
  const pictures = Object.values(SIDES).map((panel) => panel.querySelector("img"));
  const [old, url] = [pictures[0].src, URL.createObjectURL(blob)];
  for (const picture of pictures) Object.assign(picture, { src: url, width, height });
  // What the server reads the browser may not know how to show; the boxes are worth showing still.
  await Promise.allSettled(pictures.map((picture) => picture.decode()));
  URL.revokeObjectURL(old);
}

/** Draw one side's boxes; those in `alone` have no partner on the other side. */
export function drawSide({ which, variant, series }, { boxes, alone, image, other }) {
  const panel = SIDES[which];
  panel.querySelector("figcaption").replaceChildren(
    element("span", { class: `chip series-${series}` }, variant),
    element("span", { class: "muted" }, plural(boxes.length, "object")),
  );
  if (alone.length > 0) {
    const mark = element("span", { class: "mark" }, `${alone.length} not in ${other}`);
    panel.querySelector("figcaption").append(mark);
  }
  const count = plural(boxes.length, "box", "boxes");
  panel.querySelector("img").alt = `The picture with ${count} by ${variant}`;
  const lonely = new Set(alone);
  const upwards = [...boxes].reverse(); // the best on top, and above all what differs
  const common = upwards.filter((box) => !lonely.has(box));
  const drawn = [...common, ...upwards.filter((box) => lonely.has(box))].map((box) =>
    boxOn(image, box, lonely.has(box)),
  );
  panel.querySelector(".boxes").replaceChildren(...drawn);
}

/** Make the boxes of one object stand out on both sides; null ends it. */
export function pointAt(object) {
  for (const node of document.querySelectorAll(".box")) {
    const pointed = object !== null && [object.a, object.b].includes(node.source);
    node.classList.toggle("pointed", pointed);
    node.classList.toggle("faded", object !== null && !pointed);
  }
}

function boxOn({ width, height }, source, alone) {
  const [x1, y1, x2, y2] = source.box;
  const label = element("span", {}, `${source.class_name} ${source.score.toFixed(2)}`);
  const node = element("div", { class: `box ${alone ? "alone" : "both"}` }, label);
  Object.assign(node.style, {
    left: `${(100 * x1) / width}%`,
    top: `${(100 * y1) / height}%`,
    width: `${(100 * (x2 - x1)) / width}%`,
    height: `${(100 * (y2 - y1)) / height}%`,
  });
  node.classList.toggle("at-top", y1 < 0.08 * height); // there the label has no room above
  node.classList.toggle("at-right", x1 > 0.7 * width);
  node.source = source;
  return node;
}
