"""Raw output -> boxes in pixels of the source image, without duplicates."""

from dataclasses import dataclass

import numpy as np

from service.vision.detections import Detections, Floats
from service.vision.heads import Head, detections_of
from service.vision.letterbox import Letterbox


@dataclass(frozen=True, slots=True)
class Query:
    """Which boxes to return; the defaults are YOLOv5's."""

    conf: float = 0.25  # boxes at or below this score are dropped
    iou: float = 0.45  # boxes that overlap a better one of their class by more are dropped
    max_det: int = 300  # boxes of one image
    classes: frozenset[int] | None = None  # only these class ids; None keeps all
    multi_label: bool = False  # every class of a box, as COCO AP is measured


def postprocess(
    raw: Floats, head: Head, size: int, letterbox: Letterbox, query: Query
) -> Detections:
    """Raw output of a size x size model -> boxes in source pixels, best first."""
    detections = detections_of(head.decode(raw, size, query.conf), query.conf, query.multi_label)
    if query.classes is not None:
        detections = detections.take(np.isin(detections.class_ids, list(query.classes)))
    if head.nms:
        detections = non_max_suppression(detections, query.iou, query.max_det)
    detections = detections.take(np.arange(min(len(detections), query.max_det)))
    return Detections(letterbox.to_source(detections.xyxy), detections.scores, detections.class_ids)


def non_max_suppression(detections: Detections, iou: float, max_det: int) -> Detections:
    """Drop boxes that overlap a better one of their class; `detections` is sorted best first.

    Greedy; keeps at most `max_det` boxes in that order, no two of a class with an IoU above `iou`.
    """
    # Shifted by class, boxes of different classes cannot overlap, so one pass serves all classes.
    span = float(np.abs(detections.xyxy).max(initial=0.0)) * 2 + 1
    boxes = detections.xyxy.astype(np.float64) + (detections.class_ids * span)[:, None]
    x1, y1, x2, y2 = boxes.T
    area = np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0)
    alive = np.arange(len(boxes))
    kept: list[int] = []
    while len(alive) and len(kept) < max_det:
        best, rest = alive[0], alive[1:]
        kept.append(int(best))
        width = np.minimum(x2[best], x2[rest]) - np.maximum(x1[best], x1[rest])
        height = np.minimum(y2[best], y2[rest]) - np.maximum(y1[best], y1[rest])
        overlap = np.maximum(width, 0) * np.maximum(height, 0)
        union = area[best] + area[rest] - overlap
        alive = rest[overlap <= iou * union]
    return detections.take(np.array(kept, np.int64))
