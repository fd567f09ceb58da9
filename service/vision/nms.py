"""Non-maximum suppression: drop boxes that overlap a better box of the same class."""

import numpy as np

from service.vision.detections import Detections, Floats, Ints


def non_max_suppression(detections: Detections, iou: float, max_det: int) -> Detections:
    """Greedy NMS of boxes sorted best first.

    Keeps at most `max_det` boxes in that order; no two of a class have an IoU above `iou`.
    """
    return detections.take(_greedy(detections.xyxy, detections.class_ids, iou, max_det))


def _greedy(xyxy: Floats, class_ids: Ints, iou: float, max_det: int) -> Ints:
    # Shifted by class, boxes of different classes cannot overlap, so one pass serves all classes.
    span = float(np.abs(xyxy).max(initial=0.0)) * 2 + 1
    boxes = xyxy.astype(np.float64) + (class_ids * span)[:, None]
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
    return np.array(kept, np.int64)
