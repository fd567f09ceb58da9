"""How far two sets of boxes of the same images agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from service.vision.detections import Detections, Floats, Ints

MATCH_IOU: Final = 0.5  # COCO's loosest threshold for "the same object"
# Of a new version of a model with the served one: as much as the accuracy gate of a build lets int8
# differ from fp32.
MIN_AGREEMENT: Final = 0.85


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """Pairs (a[i], b[i]) of one class with their IoU, best first, and boxes without a partner."""

    a: Ints
    b: Ints
    iou: Floats
    only_a: Ints
    only_b: Ints


def match(a: Detections, b: Detections, min_iou: float = MATCH_IOU) -> Matches:
    """Pair boxes of the same class greedily, highest IoU first; each box at most once."""
    overlap = iou_matrix(a.xyxy, b.xyxy)
    overlap[a.class_ids[:, None] != b.class_ids[None, :]] = 0.0
    rows, columns = np.nonzero(overlap >= min_iou)
    free_a, free_b = np.ones(len(a), bool), np.ones(len(b), bool)
    pairs = []
    for pair in np.argsort(-overlap[rows, columns], kind="stable"):
        i, j = rows[pair], columns[pair]
        if free_a[i] and free_b[j]:
            free_a[i] = free_b[j] = False
            pairs.append((i, j))
    index = np.array(pairs, np.int64).reshape(-1, 2)
    i, j = index[:, 0], index[:, 1]
    return Matches(i, j, overlap[i, j], np.flatnonzero(free_a), np.flatnonzero(free_b))


def iou_matrix(a: Floats, b: Floats) -> Floats:
    """f32[N,4], f32[M,4] -> f32[N,M]."""
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.maximum(bottom_right - top_left, 0), axis=2)
    area_a, area_b = (np.prod(np.maximum(x[:, 2:] - x[:, :2], 0), axis=1) for x in (a, b))
    union = area_a[:, None] + area_b[None, :] - shared
    ratio: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ratio


@dataclass(frozen=True, slots=True)
class Agreement:
    """Over many images; `matched` is the share of the boxes of both sides that have a partner."""

    images: int
    boxes_a: int
    boxes_b: int
    matched: float
    mean_iou: float
    mean_score_difference: float  # of matched boxes, absolute
    max_score_difference: float

    @property
    def drop(self) -> float:
        """Distance from full agreement, 0..1: boxes without a partner and changed scores."""
        return 1 - self.matched * (1 - self.mean_score_difference)


def agreement(pairs: Sequence[tuple[Detections, Detections]]) -> Agreement:
    """Compare two detectors over the same images; without any box they agree fully."""
    matches = [(a, b, match(a, b)) for a, b in pairs]
    total_a, total_b = sum(len(a) for a, _ in pairs), sum(len(b) for _, b in pairs)
    ious = np.concatenate([m.iou for *_, m in matches] or [np.zeros(0, np.float32)])
    scores = np.concatenate(
        [np.abs(a.scores[m.a] - b.scores[m.b]) for a, b, m in matches] or [np.zeros(0, np.float32)]
    )
    boxes = total_a + total_b
    return Agreement(
        images=len(pairs),
        boxes_a=total_a,
        boxes_b=total_b,
        matched=2 * len(ious) / boxes if boxes else 1.0,
        mean_iou=float(ious.mean()) if len(ious) else 1.0,
        mean_score_difference=float(scores.mean()) if len(scores) else 0.0,
        max_score_difference=float(scores.max(initial=0.0)),
    )
