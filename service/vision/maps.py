"""The maps of a model's last convolutions -> candidate boxes.

A graph that ends at its last convolutions leaves the decoding to the server, which decodes only the
anchors whose score can exceed the threshold: sigmoid is monotonic, so the logits tell which.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log
from typing import Final, Literal

import numpy as np

from service.vision.detections import Floats, Ints
from service.vision.heads import Candidates

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
    """Where a level's values of one kind are: the map's index, and the channel of the first."""

    map: int
    channel: int = 0


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
    """How the maps f32[1,H,W,C] of a model are read.

    bins: the distances of DFL, 0, 1, 2, ... in most models; empty: the maps hold the distances.
    activation: of objectness and classes; a score is the product of both. limit: boxes that an
    end-to-end head selects, None for a head whose boxes need NMS. one_class: such a head gives a
    box its best class only, not each that it selects.
    """

    code: BoxCode
    class_count: int
    levels: tuple[Level, ...]
    bins: tuple[float, ...] = ()
    activation: Literal["sigmoid", "none"] = "sigmoid"
    limit: int | None = None
    one_class: bool = False

    def decode(self, maps: Sequence[Floats], conf: float) -> Candidates:
        """The boxes that have a score above `conf`, and possibly a few more."""
        least = _logit(conf) if self.activation == "sigmoid" else conf
        levels = [self._likely(level, maps, least) for level in self.levels]
        chosen = _Anchors(*(np.concatenate(parts) for parts in zip(*levels, strict=True)))
        scores = self._activated(chosen.classes)
        if self.levels[0].objectness is not None:
            scores = scores * self._activated(chosen.objectness)
        candidates = Candidates(self._corners(chosen), scores)
        return candidates if self.limit is None else _best(candidates, self.limit)

    def _likely(self, level: Level, maps: Sequence[Floats], least: float) -> tuple[Floats, ...]:
        """The fields of _Anchors for the anchors of a level that can pass."""
        per_cell = max(1, len(level.anchors))

        def rows(part: Part) -> Floats:
            values = maps[part.map]
            return values.reshape(-1, values.shape[3] // per_cell)[:, part.channel :]

        classes = rows(level.classes)[:, : self.class_count]
        if level.objectness is None:
            index, objectness = _rows_above(classes, least), np.empty((0, 1), np.float32)
        else:
            column = rows(level.objectness)[:, :1]
            index = np.flatnonzero(column > least)
            objectness = column[index]
        y, x = np.divmod(index // per_cell, maps[level.box.map].shape[2])
        size = np.array(level.anchors or [(level.stride, level.stride)], np.float32)
        return (
            rows(level.box)[index, : 4 * max(1, len(self.bins))],
            objectness,
            classes[index],
            np.stack([x, y], axis=1).astype(np.float32),
            np.full((len(index), 1), level.stride, np.float32),
            size[index % per_cell],
        )

    def _activated(self, values: Floats) -> Floats:
        return _sigmoid(values) if self.activation == "sigmoid" else values

    def _corners(self, chosen: "_Anchors") -> Floats:
        """f32[M,4]: left, top, right, bottom in pixels of the model's input."""
        if self.code == "distances":
            distances = _expected(chosen.box, self.bins) * chosen.stride
            point = (chosen.cell + np.float32(0.5)) * chosen.stride
            return np.concatenate([point - distances[:, :2], point + distances[:, 2:]], axis=1)
        offset, size = chosen.box[:, :2], chosen.box[:, 2:]
        if self.code == "anchors":
            offset = _sigmoid(offset) * 2 - np.float32(0.5)
            half = np.square(_sigmoid(size) * 2) * chosen.size / 2
        else:
            half = np.exp(size) * chosen.size / 2
        centre = (chosen.cell + offset) * chosen.stride
        return np.concatenate([centre - half, centre + half], axis=1)


@dataclass(frozen=True, slots=True)
class _Anchors:
    """M anchors of all levels; box and scores as the maps hold them."""

    box: Floats  # f32[M,4], or f32[M,4*bins]
    objectness: Floats  # f32[M,1], f32[0,1] for a head without it
    classes: Floats  # f32[M,C]
    cell: Floats  # f32[M,2]: column, row
    stride: Floats  # f32[M,1]
    size: Floats  # f32[M,2]: of the anchor, in pixels


def _rows_above(values: Floats, least: float) -> Ints:
    """The rows in which a value exceeds `least`, in order."""
    if values.flags.c_contiguous:  # one pass over memory; the maximum of each row takes longer
        rows: Ints = np.flatnonzero(values.ravel() > least) // values.shape[1]
        return rows[np.diff(rows, prepend=-1) > 0]
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
    mean: Floats = weights @ np.array(bins, np.float32) / weights.sum(axis=2)
    return mean


def _sigmoid(values: Floats) -> Floats:
    with np.errstate(over="ignore"):
        scores: Floats = np.reciprocal(1 + np.exp(-values))
    return scores


def _logit(score: float) -> float:
    if score <= 0:
        return -inf
    return inf if score >= 1 else log(score / (1 - score)) - SLACK
