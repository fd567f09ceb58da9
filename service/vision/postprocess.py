"""Raw output -> boxes in pixels of the source image, without duplicates."""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from service.vision.detections import Detections, Outputs
from service.vision.heads import Candidates, Head, detections_of
from service.vision.input_size import InputSize
from service.vision.letterbox import Letterbox
from service.vision.maps import MapDecoder, MapLayout
from service.vision.projections import Projections

BLOCK: Final = 128  # boxes whose overlaps NMS computes at a time


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

    decode: outputs, threshold -> boxes in pixels of the model's input. nms: its boxes overlap.
    every_class: each class of a box counts, whatever the query says. limit: boxes of one image,
    None: as many as there are.
    """

    decode: Callable[[Outputs, float], Candidates]
    nms: bool
    every_class: bool = False
    limit: int | None = None

    @classmethod
    def of(
        cls,
        head: Head,
        size: InputSize,
        maps: MapLayout | None,
        projections: Projections = MappingProxyType({}),
    ) -> Self:
        """Of the maps of a model, or of its raw output."""
        if maps is not None:
            every_class = maps.limit is not None and not maps.one_class
            decode = MapDecoder(maps, size, projections).decode
            return cls(decode, head.nms, every_class, maps.limit)

        def decode_raw(outputs: Outputs, conf: float) -> Candidates:
            return head.decode(np.asarray(outputs[0], np.float32), size, conf)

        return cls(decode_raw, head.nms)


def postprocess(
    outputs: Outputs, decoder: Decoder, letterbox: Letterbox, query: Query
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
    kept = np.empty(0, np.int64)
    for start in range(0, len(boxes), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(boxes)))
        if len(kept):
            block = block[~_overlap(boxes[kept], boxes[block], iou).any(axis=0)]
        apart = ~_overlap(boxes[block], boxes[block], iou)
        alive = np.ones(len(block), bool)
        for row in range(len(block)):
            if alive[row]:
                alive[row + 1 :] &= apart[row, row + 1 :]
        kept = np.concatenate([kept, block[alive]])
        if len(kept) >= max_det:
            break
    return detections.take(kept[:max_det])


def _overlap(a: NDArray[np.float64], b: NDArray[np.float64], iou: float) -> NDArray[np.bool_]:
    """bool[N,M]: which of the boxes f64[N,4] and f64[M,4] have an IoU above `iou`."""
    left, top, right, bottom = a.T[:, :, None]
    x1, y1, x2, y2 = b.T
    width = np.minimum(right, x2) - np.maximum(left, x1)
    height = np.minimum(bottom, y2) - np.maximum(top, y1)
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    area_a = np.maximum(right - left, 0) * np.maximum(bottom - top, 0)
    area_b = np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0)
    above: NDArray[np.bool_] = shared > iou * (area_a + area_b - shared)
    return above
