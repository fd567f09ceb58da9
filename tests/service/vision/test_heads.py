import math
from collections.abc import Iterator

import numpy as np
import pytest

from service.vision.heads import HEADS, Candidates, cells_of, detections_of
from service.vision.input_size import InputSize

SIZE = 64
CLASSES = 3
INPUT = InputSize.of(SIZE)
CELLS = cells_of(INPUT)
CONF = 0.4


def random_raw(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    raw = rng.random((1, rows, columns), np.float32)
    raw[:, :, :4] *= 30
    return raw


def corners(x: float, y: float, w: float, h: float) -> tuple[float, ...]:
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


# Each yields the box and the scores of the rows above CONF, one row at a time.


def naive_yolov5(raw: np.ndarray) -> Iterator[tuple]:
    for x, y, w, h, objectness, *scores in raw[0].tolist():
        if objectness > CONF:
            yield corners(x, y, w, h), [objectness * score for score in scores]


def naive_yolox(raw: np.ndarray) -> Iterator[tuple]:
    cells = (
        (stride, row, column)
        for stride in (8, 16, 32)
        for row in range(SIZE // stride)
        for column in range(SIZE // stride)
    )
    for (stride, row, column), cell in zip(cells, raw[0].tolist(), strict=True):
        x, y, w, h, objectness, *scores = cell
        if objectness > CONF:
            box = (x + column, y + row, math.exp(w), math.exp(h))
            yield corners(*(each * stride for each in box)), [objectness * s for s in scores]


def naive_yolov8(raw: np.ndarray) -> Iterator[tuple]:
    for x, y, w, h, *scores in raw[0].T.tolist():
        if max(scores) > CONF:
            yield corners(x, y, w, h), scores


def naive_end2end(raw: np.ndarray) -> Iterator[tuple]:
    for x1, y1, x2, y2, score, class_id in raw[0].tolist():
        if score > CONF:
            yield (x1, y1, x2, y2), [score * (each == class_id) for each in range(CLASSES)]


def yolox_raw(rng: np.random.Generator) -> np.ndarray:
    raw = random_raw(rng, CELLS, 5 + CLASSES)
    raw[:, :, :4] = raw[:, :, :4] / 15 - 1
    return raw


def end2end_raw(rng: np.random.Generator) -> np.ndarray:
    raw = random_raw(rng, 300, 6)
    raw[0, :, 5] = rng.integers(0, CLASSES, 300)
    raw[0, 0, 4:] = 0.9, CLASSES - 1  # the highest class occurs
    return raw


CASES = {
    "yolov5": (lambda rng: random_raw(rng, 100, 5 + CLASSES), naive_yolov5),
    "yolox": (yolox_raw, naive_yolox),
    "yolov8": (lambda rng: random_raw(rng, 100, 4 + CLASSES).transpose(0, 2, 1), naive_yolov8),
    "end2end": (end2end_raw, naive_end2end),
}


@pytest.mark.parametrize("head", CASES)
def test_a_head_decodes_like_a_plain_loop(head):
    make, naive = CASES[head]
    raw = make(np.random.default_rng(7))
    expected = list(naive(raw))
    candidates = HEADS[head].decode(raw, INPUT, CONF)
    assert 0 < len(expected) < raw.size
    np.testing.assert_allclose(candidates.xyxy, [box for box, _ in expected], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(candidates.scores, [s for _, s in expected], rtol=1e-5)


@pytest.mark.parametrize("head", CASES)
def test_nothing_above_the_threshold_gives_no_boxes(head):
    make, _ = CASES[head]
    raw = make(np.random.default_rng(7))
    candidates = HEADS[head].decode(raw, INPUT, 1.0)
    for multi_label in (False, True):
        found = detections_of(candidates, 1.0, multi_label)
        assert len(found) == 0
        assert found.xyxy.shape == (0, 4)


def test_only_the_end2end_head_needs_no_nms():
    assert {name for name, head in HEADS.items() if not head.nms} == {"end2end"}


CANDIDATES = Candidates(
    np.arange(12, dtype=np.float32).reshape(3, 4),
    np.array([[0.5, 0.6], [0.9, 0.1], [0.3, 0.2]], np.float32),
)


@pytest.mark.parametrize(
    ("multi_label", "scores", "class_ids", "left"),
    [
        (False, [0.9, 0.6, 0.3], [0, 1, 0], [4, 0, 8]),
        (True, [0.9, 0.6, 0.5, 0.3], [0, 1, 0, 0], [4, 0, 0, 8]),
    ],
)
def test_a_box_gets_its_best_class_or_every_class_best_first(multi_label, scores, class_ids, left):
    found = detections_of(CANDIDATES, 0.25, multi_label)
    np.testing.assert_allclose(found.scores, scores)
    assert found.class_ids.tolist() == class_ids
    assert found.xyxy[:, 0].tolist() == left


def test_a_score_at_the_threshold_is_dropped():
    score = np.float32(0.5)
    candidates = Candidates(np.zeros((1, 4), np.float32), np.array([[score]]))
    assert len(detections_of(candidates, 0.5, multi_label=False)) == 0
