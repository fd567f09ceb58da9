"""Raw output -> boxes in pixels of the source image, without duplicates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from service.vision.detections import Detections, Floats
from service.vision.heads import Candidates, Head, detections_of
from service.vision.letterbox import Letterbox
from service.vision.maps import MapLayout


@dataclass(frozen=True, slots=True)
class Query:
    """Which boxes to return; the defaults are YOLOv5's."""

    conf: float = 0.25  # boxes at or below this score are dropped
    iou: float = 0.45  # boxes that overlap a better one of their class by more are dropped
    max_det: int = 300  # boxes of one image
    classes: frozenset[int] | None = None  # only these class ids; None keeps all
    multi_label: bool = False  # every class of a box, as COCO AP is measured


@dataclass(frozen=True, slots=True)
class Decoder:
    """How the outputs of an engine are read.

    decode: outputs, threshold -> boxes in pixels of the model's square. nms: its boxes overlap.
    every_class: each class of a box counts, whatever the query says. limit: boxes of one image,
    None: as many as there are.
    """

    decode: Callable[[Sequence[Floats], float], Candidates]
    nms: bool
    every_class: bool = False
    limit: int | None = None

    @classmethod
    def of(cls, head: Head, size: int, maps: MapLayout | None) -> Self:
        """Of the maps of a model, or of its raw output."""
        if maps is not None:
            every_class = maps.limit is not None and not maps.one_class
            return cls(maps.decode, head.nms, every_class, maps.limit)
        return cls(lambda outputs, conf: head.decode(outputs[0], size, conf), head.nms)


def postprocess(
    outputs: Sequence[Floats], decoder: Decoder, letterbox: Letterbox, query: Query
) -> Detections:
    """Outputs of an engine -> boxes in source pixels, best first."""
    multi_label = query.multi_label or decoder.every_class
    candidates = decoder.decode(outputs, query.conf)
    detections = detections_of(candidates, query.conf, multi_label)
    if decoder.limit is not None:
        detections = detections.take(np.arange(min(len(detections), decoder.limit)))
    if query.classes is not None:
        detections = detections.take(np.isin(detections.class_ids, list(query.classes)))
    if decoder.nms:
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
