"""Raw output -> candidate boxes in the model's input, one function per YOLO layout."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import numpy as np

from service.vision.detections import Detections, Floats, Ints
from service.vision.input_size import InputSize

HeadName = Literal["yolov5", "yolox", "yolov8", "yolonas", "end2end"]

STRIDES: Final = (8, 16, 32)
# YOLOv5's limit. Boxes that rank lower do not reach the answer, but cost NMS time.
MAX_CANDIDATES: Final = 30_000


@dataclass(frozen=True, slots=True)
class Candidates:
    """Boxes before selection: f32[M,4] in pixels of the model's input, f32[M,C] class scores."""

    xyxy: Floats
    scores: Floats


def decode_yolov5(raw: Floats, size: InputSize, conf: float) -> Candidates:
    """f32[1,N,5+C]: centre x, y, width, height in pixels, objectness, class scores."""
    rows = raw[0][_likely(raw, conf)]
    return Candidates(_corners(rows[:, :2], rows[:, 2:4]), rows[:, 5:] * rows[:, 4:5])


def decode_yolox(raw: Floats, size: InputSize, conf: float) -> Candidates:
    """f32[1,N,5+C]: centre offset and log of the size in cells, objectness, class scores."""
    grid, stride = _cells(size)
    likely = _likely(raw, conf)
    rows, grid, stride = raw[0][likely], grid[likely], stride[likely]
    centre = (rows[:, :2] + grid) * stride
    extent = np.exp(rows[:, 2:4]) * stride
    return Candidates(_corners(centre, extent), rows[:, 5:] * rows[:, 4:5])


def _likely(raw: Floats, conf: float) -> Ints:
    """Rows whose objectness is above `conf`: no score of a row exceeds its objectness."""
    return np.flatnonzero(raw[0, :, 4] > conf)


def decode_yolov8(raw: Floats, size: InputSize, conf: float) -> Candidates:
    """f32[1,4+C,N]: centre x, y, width, height in pixels, class scores; no objectness."""
    rows = raw[0]
    rows = rows[:, rows[4:].max(axis=0) > conf].T
    return Candidates(_corners(rows[:, :2], rows[:, 2:4]), rows[:, 4:])


def decode_yolonas(raw: Floats, size: InputSize, conf: float) -> Candidates:
    """f32[1,N,4+C]: left, top, right, bottom in pixels, class scores; no objectness."""
    rows = raw[0]
    rows = rows[rows[:, 4:].max(axis=1) > conf]
    return Candidates(rows[:, :4], rows[:, 4:])


def decode_end2end(raw: Floats, size: InputSize, conf: float) -> Candidates:
    """f32[1,K,6]: left, top, right, bottom in pixels, score, class; NMS is part of the model."""
    rows = raw[0]
    rows = rows[rows[:, 4] > conf]
    class_ids = rows[:, 5].astype(np.int64)
    scores = np.zeros((len(rows), int(class_ids.max(initial=0)) + 1), np.float32)
    scores[np.arange(len(rows)), class_ids] = rows[:, 4]
    return Candidates(rows[:, :4], scores)


@dataclass(frozen=True, slots=True)
class Head:
    """The decoder of one layout, and whether its boxes need NMS."""

    decode: Callable[[Floats, InputSize, float], Candidates]
    nms: bool


HEADS: Final[dict[HeadName, Head]] = {
    "yolov5": Head(decode_yolov5, nms=True),
    "yolox": Head(decode_yolox, nms=True),
    "yolov8": Head(decode_yolov8, nms=True),
    "yolonas": Head(decode_yolonas, nms=True),
    "end2end": Head(decode_end2end, nms=False),
}


def detections_of(candidates: Candidates, conf: float, multi_label: bool) -> Detections:
    """Scores above `conf`, best first: the best class of each box, or each of its classes.

    COCO AP is measured with every class of a box (`multi_label`), as in YOLOv5's and YOLOv7's
    validation; an application needs one label for each box.
    """
    scores = candidates.scores
    if multi_label:
        rows, class_ids = np.nonzero(scores > conf)
    else:
        best = scores.argmax(axis=1) if scores.size else np.zeros(len(scores), np.int64)
        rows = np.flatnonzero(scores[np.arange(len(scores)), best] > conf)
        class_ids = best[rows]
    chosen = scores[rows, class_ids]
    order = np.argsort(-chosen, kind="stable")[:MAX_CANDIDATES]
    rows = rows[order]
    return Detections(candidates.xyxy[rows], chosen[order], class_ids[order].astype(np.int64))


def cells_of(size: InputSize) -> int:
    """Number of cells of an anchor-free head (8400 at 640x640)."""
    return sum((size.height // stride) * (size.width // stride) for stride in STRIDES)


@lru_cache(maxsize=8)
def _cells(size: InputSize) -> tuple[Floats, Floats]:
    """f32[N,2] x, y and f32[N,1] stride of every cell, finest level first."""
    grids, strides = [], []
    for stride in STRIDES:
        grids.append(grid_of(size, stride))
        strides.append(np.full((len(grids[-1]), 1), stride, np.float32))
    return np.concatenate(grids), np.concatenate(strides)


def grid_of(size: InputSize, stride: int) -> Floats:
    """f32[N,2]: column and row of every cell of a map, row by row."""
    y, x = np.mgrid[: size.height // stride, : size.width // stride]
    return np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)


def _corners(centre: Floats, extent: Floats) -> Floats:
    half = extent / 2
    return np.concatenate([centre - half, centre + half], axis=1)
