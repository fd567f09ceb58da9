"""How far quantization moves what a detector says, in one number.

The signal is the scores of the float model, the noise what happens to them and to their boxes:

    noise = sum((s' - s)**2) + sum((max(s) * (1 - IoU(box', box)) / 0.45)**2)   over sum(s**2)

so that anchors count by the square of their score, and background, which is nearly all of the
output, hardly at all. Noise powers of layers that are quantized one at a time add up, roughly, to
that of all of them together; the search for the layers that hurt most rests on that.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import log10
from typing import Final, Self

import numpy as np

from service.vision.agreement import match
from service.vision.detections import Floats
from service.vision.heads import Candidates, Head, detections_of

EVERYTHING: Final = -1.0  # a threshold below every score: all anchors, so that rows correspond
LOST: Final = 0.45  # of IoU: COCO's AP averages over thresholds 0.5 to 0.95
SEEN: Final = 0.01  # score from which on an end-to-end head's box counts
QUIETEST: Final = 1e-12
SILENT: Final = 1e-3  # signal power up to which nothing was detected


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What the float model says of one image."""

    candidates: Candidates
    signal: float  # sum of squared scores: about the number of sure anchors
    head: Head
    size: int

    @classmethod
    def of(cls, raw: Floats, head: Head, size: int) -> Self:
        """From the raw output."""
        candidates = head.decode(raw, size, EVERYTHING)
        return cls(candidates, _power(candidates), head, size)

    def noise(self, output: Floats) -> float:
        """The noise power of the quantized model's raw output, in the signal's unit."""
        found = self.head.decode(output, self.size, EVERYTHING)
        return (_aligned if self.head.nms else _matched)(self.candidates, found)


def relative(noises: Iterable[float], references: Iterable[Reference]) -> float:
    """The noise power over several images as a share of the signal's."""
    return sum(noises) / max(sum(reference.signal for reference in references), SILENT)


def _power(candidates: Candidates) -> float:
    return float(np.square(candidates.scores).sum())


def decibels(noise: float) -> float:
    """The signal-to-quantization-noise ratio of a relative noise power; 120 dB for none."""
    return -10 * log10(max(noise, QUIETEST))


def from_decibels(sqnr: float) -> float:
    """The relative noise power of a signal-to-quantization-noise ratio."""
    return float(10 ** (-sqnr / 10))


def _aligned(a: Candidates, b: Candidates) -> float:
    """Row by row: the same anchor in both."""
    scores = float(np.square(a.scores - b.scores).sum())
    weight = a.scores.max(axis=1)
    return scores + float(np.square(weight * (1 - _overlap(a, b)) / LOST).sum())


def _matched(reference: Candidates, output: Candidates) -> float:
    """Box by box, where the model sorts them itself: one without a partner is all noise."""
    a, b = (detections_of(each, SEEN, multi_label=False) for each in (reference, output))
    pairs = match(a, b)
    scores = a.scores[pairs.a]
    moved = np.square(scores - b.scores[pairs.b]) + np.square(scores * (1 - pairs.iou) / LOST)
    alone = [np.square(x.scores[only]) for x, only in ((a, pairs.only_a), (b, pairs.only_b))]
    return float(moved.sum() + sum(part.sum() for part in alone))


def _overlap(a: Candidates, b: Candidates) -> Floats:
    """IoU of corresponding boxes, f32[N]."""
    low, high = np.maximum(a.xyxy[:, :2], b.xyxy[:, :2]), np.minimum(a.xyxy[:, 2:], b.xyxy[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    area_a, area_b = (np.prod(np.maximum(x[:, 2:] - x[:, :2], 0), axis=1) for x in (a.xyxy, b.xyxy))
    union = area_a + area_b - shared
    ratio: Floats = np.divide(shared, union, out=np.ones_like(shared), where=union > 0)
    return ratio
