"""The maps of a model's last convolutions -> candidate boxes.

A graph that ends at its last convolutions leaves the decoding to the server, which decodes only the
anchors whose score can exceed the threshold: sigmoid is monotonic, so the logits tell which. It may
leave the convolution of what only these anchors need, too.
"""

from dataclasses import dataclass
from math import inf, log
from types import MappingProxyType
from typing import Final, Literal

import numpy as np

from service.vision.detections import Floats, Ints, Outputs
from service.vision.heads import Candidates, grid_of
from service.vision.input_size import InputSize
from service.vision.projections import Projections

# How a box is written, for a cell at column x and row y of a map with stride s, in pixels:
#   anchors      centre ((2 sigmoid(t) - 0.5) + (x, y)) s, size (2 sigmoid(t))^2 anchor: YOLOv5, 7
#   exponential  centre (t + (x, y)) s, size exp(t) s: YOLOX
#   distances    left, top, right, bottom from ((x, y) + 0.5) s, in cells: YOLOv8 and later; with
#                bins, each is the mean of a distribution over them (DFL)
BoxCode = Literal["anchors", "exponential", "distances"]

# Logits: a score that rounds to the threshold must not be lost before it is compared as a score.
SLACK: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Part:
    """Where a level's values of one kind are: the map's index, and the channel of the first.

    projected: the map holds the features from which a 1x1 convolution computes them.
    """

    map: int
    channel: int = 0
    projected: bool = False


@dataclass(frozen=True, slots=True)
class Level:
    """The maps of one stride. Each cell has one box, or one for each anchor, one after another."""

    stride: int
    box: Part
    classes: Part
    objectness: Part | None = None
    anchors: tuple[tuple[float, float], ...] = ()  # width and height in pixels


@dataclass(frozen=True, slots=True)
class MapLayout:
    """How the maps f32[1,H,W,C], or u8 with features, of a model are read.

    Objectness and classes are logits; a score is the product of both probabilities.

    bins: the distances of DFL, 0, 1, 2, ... in most models; empty: the maps hold the distances.
    limit: boxes that an end-to-end head selects, None for a head whose boxes need NMS. one_class:
    such a head gives a box its best class only, not each that it selects. top: the graph does not
    return its maps, but the anchors with the highest scores in them, at most so many.
    """

    code: BoxCode
    class_count: int
    levels: tuple[Level, ...]
    bins: tuple[float, ...] = ()
    limit: int | None = None
    one_class: bool = False
    top: int | None = None


class MapDecoder:
    """Decodes the maps of a model with an input of this size."""

    def __init__(
        self, layout: MapLayout, size: InputSize, projections: Projections = MappingProxyType({})
    ) -> None:
        self._layout = layout
        self._projections = projections
        # Of each anchor of all levels: f32[N,2] the cell's column and row, f32[N,1] the stride,
        # f32[N,2] the anchor's size.
        cells, strides, sizes = zip(*(_geometry(each, size) for each in layout.levels), strict=True)
        self._cells = np.concatenate(cells)
        self._strides = np.concatenate(strides)
        self._sizes = np.concatenate(sizes)
        self._starts = np.cumsum([0, *map(len, cells)])

    def decode(self, maps: Outputs, conf: float) -> Candidates:
        """The boxes that have a score above `conf`, and possibly a few more."""
        layout = self._layout
        least = _logit(conf)
        if layout.top is None:
            parts = [
                self._likely(level, start, maps, least)
                for level, start in zip(layout.levels, self._starts, strict=False)
            ]
            index, box, classes, objectness = map(np.concatenate, zip(*parts, strict=True))
        else:
            index, box, classes, objectness = _likely_of_top(maps, least)
        scores = _sigmoid(classes)
        if layout.levels[0].objectness is not None:
            scores = scores * _sigmoid(objectness)
        candidates = Candidates(self._corners(box, index), scores)
        return candidates if layout.limit is None else _best(candidates, layout.limit)

    def _likely(
        self, level: Level, start: int, maps: Outputs, least: float
    ) -> tuple[Ints, Floats, Floats, Floats]:
        """The anchors of a level that can pass, and what their maps hold."""
        per_cell = max(1, len(level.anchors))

        def columns(part: Part, count: int) -> Floats:
            values = np.asarray(maps[part.map], np.float32)
            rows = values.reshape(-1, values.shape[3] // per_cell)
            return rows[:, part.channel : part.channel + count]

        def rows(part: Part, count: int, index: Ints) -> Floats:
            if part.projected:
                return self._projections[part.map].of(maps[part.map], index)
            return columns(part, count)[index]

        class_count = self._layout.class_count
        if level.objectness is None:
            index, objectness = _rows_above(columns(level.classes, class_count), least), _NONE
        else:
            column = columns(level.objectness, 1)
            index = np.flatnonzero(column > least)
            objectness = column[index]
        box = rows(level.box, 4 * max(1, len(self._layout.bins)), index)
        return start + index, box, rows(level.classes, class_count, index), objectness

    def _corners(self, box: Floats, index: Ints) -> Floats:
        """f32[M,4]: left, top, right, bottom in pixels of the model's input."""
        cell, stride = self._cells[index], self._strides[index]
        if self._layout.code == "distances":
            distances = _expected(box, self._layout.bins)
            point = cell + np.float32(0.5)
            corners: Floats = np.concatenate(
                [point - distances[:, :2], point + distances[:, 2:]], axis=1
            )
            corners *= stride
            return corners
        offset, extent = box[:, :2], box[:, 2:]
        if self._layout.code == "anchors":
            offset = _sigmoid(offset) * 2 - np.float32(0.5)
            half = np.square(_sigmoid(extent) * 2) * self._sizes[index] / 2
        else:
            half = np.exp(extent) * stride / 2
        centre = (cell + offset) * stride
        return np.concatenate([centre - half, centre + half], axis=1)


def _likely_of_top(outputs: Outputs, least: float) -> tuple[Ints, Floats, Floats, Floats]:
    """The same of anchors that the graph has selected."""
    index, box, classes, *others = (np.asarray(each[0], np.float32) for each in outputs)
    objectness = others[0] if others else _NONE
    passing = np.flatnonzero((objectness if others else classes).max(axis=1) > least)
    kept = objectness[passing] if others else _NONE
    return index[passing, 0].astype(np.int64), box[passing], classes[passing], kept


_NONE: Final = np.empty((0, 1), np.float32)


def _geometry(level: Level, size: InputSize) -> tuple[Floats, Floats, Floats]:
    """Cell, stride and size of each anchor of a level, in the order of its maps."""
    count, grid = max(1, len(level.anchors)), grid_of(size, level.stride)
    cells = grid.repeat(count, axis=0)
    sizes = np.array(level.anchors or [(level.stride, level.stride)], np.float32)
    return (
        cells,
        np.full((len(cells), 1), level.stride, np.float32),
        np.tile(sizes, (len(grid), 1)),
    )


def _rows_above(values: Floats, least: float) -> Ints:
    """The rows in which a value exceeds `least`, in order."""
    if values.flags.c_contiguous:  # one pass over memory; the maximum of each row takes longer
        rows: Ints = np.flatnonzero(values.ravel() > least) // values.shape[1]
        first = np.ones(len(rows), bool)
        np.not_equal(rows[1:], rows[:-1], out=first[1:])
        return rows[first]
    return np.flatnonzero(values.max(axis=1) > least)


def _best(candidates: Candidates, limit: int) -> Candidates:
    """The `limit` boxes with the best scores, as an end-to-end head selects them first."""
    if len(candidates.scores) <= limit:
        return candidates
    best = np.argsort(-candidates.scores.max(axis=1), kind="stable")[:limit]
    return Candidates(candidates.xyxy[best], candidates.scores[best])


def _expected(box: Floats, bins: tuple[float, ...]) -> Floats:
    """f32[M,4*bins] -> f32[M,4]: the mean of each side's distribution."""
    if not bins:
        return box
    logits = box.reshape(-1, 4, len(bins))
    weights = np.exp(logits - logits.max(axis=2, keepdims=True))
    # Not by BLAS, whose threads would keep a core from the next inference.
    mean: Floats = np.einsum("msb,b->ms", weights, np.array(bins, np.float32))
    mean /= weights.sum(axis=2)
    return mean


def _sigmoid(values: Floats) -> Floats:
    with np.errstate(over="ignore"):
        scores: Floats = np.reciprocal(1 + np.exp(-values))
    return scores


def _logit(score: float) -> float:
    if score <= 0:
        return -inf
    return inf if score >= 1 else log(score / (1 - score)) - SLACK
