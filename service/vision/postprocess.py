"""Raw output -> boxes in pixels of the source image."""

from dataclasses import dataclass

import numpy as np

from service.vision.detections import Detections, Floats
from service.vision.heads import Head, detections_of
from service.vision.letterbox import Letterbox
from service.vision.nms import non_max_suppression


@dataclass(frozen=True, slots=True)
class Query:
    """Which boxes a caller wants; the defaults are YOLOv5's."""

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
