import numpy as np
import pytest

from service.vision.agreement import agreement, iou_matrix, match
from service.vision.detections import Detections


def boxes(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    """Rows of left, top, right, bottom, score, class."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


A = boxes((0, 0, 10, 10, 0.9, 0), (20, 0, 30, 10, 0.8, 1), (40, 0, 50, 10, 0.7, 0))
B = boxes((20, 0, 30, 10, 0.85, 1), (0, 0, 10, 8, 0.6, 0), (40, 0, 50, 10, 0.5, 2))
NONE = boxes()


def test_iou_of_known_boxes():
    overlap = iou_matrix(A.xyxy, B.xyxy)
    np.testing.assert_allclose(overlap, [[0, 0.8, 0], [1, 0, 0], [0, 0, 1]], rtol=1e-6)


def test_boxes_without_area_overlap_nothing():
    point = np.array([[5, 5, 5, 5]], np.float32)
    assert iou_matrix(point, point).tolist() == [[0.0]]


def test_pairs_are_of_one_class_and_best_first():
    found = match(A, B)
    assert list(zip(found.a, found.b, strict=True)) == [(1, 0), (0, 1)]
    np.testing.assert_allclose(found.iou, [1, 0.8])
    assert found.only_a.tolist() == [2]
    assert found.only_b.tolist() == [2]


def test_a_box_is_paired_once_with_the_nearest():
    two = boxes((0, 0, 10, 8, 0.9, 0), (0, 0, 10, 9, 0.8, 0))
    found = match(boxes((0, 0, 10, 10, 0.9, 0)), two)
    assert found.b.tolist() == [1]
    assert found.only_b.tolist() == [0]


def test_boxes_below_the_iou_threshold_do_not_match():
    found = match(boxes((0, 0, 10, 10, 0.9, 0)), boxes((6, 0, 16, 10, 0.9, 0)))
    assert len(found.iou) == 0


@pytest.mark.parametrize(
    ("a", "b", "only_a", "only_b"), [(A, NONE, 3, 0), (NONE, B, 0, 3), (NONE, NONE, 0, 0)]
)
def test_without_boxes_on_one_side_nothing_matches(a, b, only_a, only_b):
    found = match(a, b)
    assert len(found.a) == len(found.b) == len(found.iou) == 0
    assert (len(found.only_a), len(found.only_b)) == (only_a, only_b)


def test_agreement_counts_both_sides():
    found = agreement([(A, B), (A, A), (NONE, A)])
    assert (found.images, found.boxes_a, found.boxes_b) == (3, 6, 9)
    assert found.matched == pytest.approx(2 * 5 / 15)
    assert found.mean_iou == pytest.approx((1 + 0.8 + 3) / 5)
    assert found.mean_score_difference == pytest.approx((0.05 + 0.3) / 5)
    assert found.max_score_difference == pytest.approx(0.3)


@pytest.mark.parametrize("pairs", [[], [(NONE, NONE)]])
def test_two_empty_sides_agree_fully(pairs):
    found = agreement(pairs)
    assert (found.matched, found.mean_iou, found.max_score_difference) == (1.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("a", "b", "drop"),
    [
        (A, A, 0),
        (A, NONE, 1),
        (A, B, 1 - 2 / 3 * (1 - 0.175)),  # two of three match; scores differ by 0.05 and 0.3
    ],
)
def test_lost_boxes_and_changed_scores_are_a_drop(a, b, drop):
    assert agreement([(a, b)]).drop == pytest.approx(drop, abs=1e-6)
