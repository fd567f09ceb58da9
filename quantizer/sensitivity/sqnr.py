"""The signal-to-quantization-noise ratio (SQNR) of a detector's outputs.

The signal power is that of the float model's scores; the noise power is that of the changes to the
scores and to their boxes. Their ratio, the relative noise, is

    (sum((s' - s)**2) + sum((max(s) * (1 - IoU(box', box)) / 0.45)**2)) / sum(s**2)

so an anchor counts by the square of its score, and background, which is nearly all of the output,
hardly counts. The noise powers of layers that are quantized one at a time add up, roughly, to the
noise power of all together; the search for sensitive layers relies on that.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import log10
from typing import Final, Self

import numpy as np

from service.vision.agreement import match
from service.vision.detections import Floats
from service.vision.heads import Candidates, Head, detections_of
from service.vision.input_size import InputSize
from service.vision.maps import MapDecoder, MapLayout

BELOW_ALL_SCORES: Final = -1.0  # a threshold that keeps every anchor, so that rows correspond
LOST: Final = 0.45  # of IoU, the width of the thresholds that COCO's AP averages: 0.5 to 0.95
LEAST_SCORE: Final = 0.01  # a box of an end-to-end head with a lower score does not count
LEAST_NOISE: Final = 1e-12
LEAST_SIGNAL: Final = 1e-3  # power; with less, nothing was detected


@dataclass(frozen=True, slots=True)
class Reading:
    """How outputs become boxes.

    aligned: a row is the same anchor in every image. nms: several anchors detect one object, and
    NMS chooses; without it one anchor does, which may be its neighbour in the quantized model.
    """

    decode: Callable[[Sequence[Floats], float], Candidates]
    aligned: bool
    nms: bool

    @classmethod
    def of(cls, head: Head, size: InputSize, layout: MapLayout | None = None) -> Self:
        """Of the maps of a graph, or of its raw output."""
        if layout is not None:
            every_anchor = MapDecoder(replace(layout, limit=None), size)
            return cls(every_anchor.decode, aligned=True, nms=head.nms)
        return cls(lambda outputs, conf: head.decode(outputs[0], size, conf), head.nms, head.nms)


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What the float model detects in one image."""

    candidates: Candidates
    signal: float  # sum of squared scores: about the number of anchors with a score near 1
    reading: Reading

    @classmethod
    def of(cls, outputs: Sequence[Floats], reading: Reading) -> Self:
        candidates = reading.decode(outputs, BELOW_ALL_SCORES)
        return cls(candidates, _power(candidates), reading)

    def noise(self, outputs: Sequence[Floats]) -> float:
        """The noise power of the quantized model's outputs, in the unit of `signal`."""
        quantized = self.reading.decode(outputs, BELOW_ALL_SCORES)
        return (_aligned if self.reading.aligned else _matched)(self.candidates, quantized)


def relative(noises: Iterable[float], references: Iterable[Reference]) -> float:
    """The noise power over several images as a fraction of the signal power."""
    return sum(noises) / max(sum(reference.signal for reference in references), LEAST_SIGNAL)


def _power(candidates: Candidates) -> float:
    return float(np.square(candidates.scores).sum())


def decibels(noise: float) -> float:
    """The signal-to-quantization-noise ratio of a relative noise power; 120 dB for none."""
    return -10 * log10(max(noise, LEAST_NOISE))


def from_decibels(sqnr: float) -> float:
    """The relative noise power of a signal-to-quantization-noise ratio."""
    return float(10 ** (-sqnr / 10))


def _aligned(a: Candidates, b: Candidates) -> float:
    """Noise power row by row: a row is the same anchor in both."""
    scores = float(np.square(a.scores - b.scores).sum())
    weight = a.scores.max(axis=1)
    return scores + float(np.square(weight * (1 - overlap(a, b)) / LOST).sum())


def _matched(reference: Candidates, output: Candidates) -> float:
    """Noise power box by box, for a model that sorts them; a box without a match is all noise."""
    a, b = (detections_of(side, LEAST_SCORE, multi_label=False) for side in (reference, output))
    pairs = match(a, b)
    scores = a.scores[pairs.a]
    moved = np.square(scores - b.scores[pairs.b]) + np.square(scores * (1 - pairs.iou) / LOST)
    unmatched = (a.scores[pairs.only_a], b.scores[pairs.only_b])
    return float(moved.sum() + sum(np.square(part).sum() for part in unmatched))


def overlap(a: Candidates, b: Candidates) -> Floats:
    """IoU of corresponding boxes, f32[N]."""
    low, high = np.maximum(a.xyxy[:, :2], b.xyxy[:, :2]), np.minimum(a.xyxy[:, 2:], b.xyxy[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    area_a, area_b = (np.prod(np.maximum(x[:, 2:] - x[:, :2], 0), axis=1) for x in (a.xyxy, b.xyxy))
    union = area_a + area_b - shared
    ratio: Floats = np.divide(shared, union, out=np.ones_like(shared), where=union > 0)
    return ratio
