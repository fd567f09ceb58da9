"""How much of a detector's detections quantization costs, 0..1, predicted without annotations.

For an anchor with the score s of the float model's best class, the score s' that the quantized
model gives this class, and the overlap of both boxes, the loss is

    1 - IoU(box, box') min(s, s') / max(s, s')

and its weight is max(s, s')**2, so that what is detected counts, by either model, and background
does not. Unlike a noise power it is bounded: an anchor that is wrong cannot count as many. Boxes of
an end-to-end head are matched instead, since it does not matter which anchor detects an object.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np

from quantizer.sensitivity.sqnr import Reading, overlap
from service.vision.agreement import match
from service.vision.detections import Floats
from service.vision.heads import Candidates, detections_of

DETECTED: Final = 0.05  # a box of an end-to-end head with a lower score does not count
TINY: Final = 1e-6


class Loss(NamedTuple):
    """Over the anchors of one image."""

    weighted: float
    weight: float


def detection_loss(reference: Candidates, output: Candidates, reading: Reading) -> Loss:
    """The loss of a quantized model's candidates: all anchors of both in the same order, or the
    boxes of a head without NMS in any."""
    return _aligned(reference, output) if reading.nms else _matched(reference, output)


def mean_loss(losses: Iterable[Loss]) -> float:
    """Over several images, 0..1; 0 where nothing is detected."""
    weighted, weight = np.sum([(0.0, 0.0), *losses], axis=0)
    return float(weighted / weight) if weight else 0.0


def _aligned(a: Candidates, b: Candidates) -> Loss:
    rows = np.arange(len(a.scores))
    label = a.scores.argmax(axis=1)
    return _sum(a.scores[rows, label], b.scores[rows, label], overlap(a, b))


def _matched(reference: Candidates, output: Candidates) -> Loss:
    """Of an end-to-end head: a box is lost that no box of its class matches, of any anchor."""
    a, b = (detections_of(side, DETECTED, multi_label=False) for side in (reference, output))
    pairs = match(a, b)
    found = _sum(a.scores[pairs.a], b.scores[pairs.b], pairs.iou)
    lost = float(np.square(a.scores[pairs.only_a]).sum() + np.square(b.scores[pairs.only_b]).sum())
    return Loss(found.weighted + lost, found.weight + lost)


def _sum(a: Floats, b: Floats, iou: Floats) -> Loss:
    higher = np.maximum(a, b)
    weight = np.square(higher)
    kept = iou * np.minimum(a, b) / np.maximum(higher, TINY)
    return Loss(float((weight * (1 - kept)).sum()), float(weight.sum()))
