import numpy as np
import pytest

from quantizer.sensitivity.detection_loss import Loss, detection_loss, mean_loss
from quantizer.sensitivity.sqnr import Reading
from service.vision.heads import HEADS, Candidates
from service.vision.input_size import InputSize

ALIGNED = Reading.of(HEADS["yolov8"], InputSize.of(64))
SORTED = Reading.of(HEADS["end2end"], InputSize.of(64))
BOX = (10.0, 10.0, 20.0, 20.0)
HALF = (10.0, 10.0, 20.0, 15.0)  # IoU 1/2 with BOX
FAR = (40.0, 40.0, 50.0, 50.0)


def candidates(*rows: tuple[tuple[float, ...], tuple[float, ...]]) -> Candidates:
    return Candidates(
        np.array([box for box, _ in rows], np.float32),
        np.array([scores for _, scores in rows], np.float32),
    )


def loss(a: Candidates, b: Candidates, reading: Reading = ALIGNED) -> float:
    return mean_loss([detection_loss(a, b, reading)])


def test_equal_candidates_lose_nothing():
    both = candidates((BOX, (0.8, 0.1)), (FAR, (0.05, 0.0)))
    assert loss(both, both) == pytest.approx(0, abs=1e-6)
    assert loss(both, both, SORTED) == pytest.approx(0, abs=1e-6)


def test_a_score_counts_by_its_ratio_and_a_box_by_its_overlap():
    sure = candidates((BOX, (0.8, 0.1)))
    assert loss(sure, candidates((BOX, (0.6, 0.1)))) == pytest.approx(0.25)
    assert loss(candidates((BOX, (0.6, 0.1))), sure) == pytest.approx(0.25)
    assert loss(sure, candidates((HALF, (0.8, 0.1)))) == pytest.approx(0.5)
    assert loss(sure, candidates((HALF, (0.4, 0.1)))) == pytest.approx(0.75)


def test_a_box_that_one_model_alone_detects_is_lost():
    sure, gone = candidates((BOX, (0.8, 0.0))), candidates((BOX, (0.01, 0.0)))
    assert loss(sure, gone) > 0.98
    assert loss(gone, sure) > 0.98


def test_background_hardly_counts():
    a = candidates((BOX, (0.8, 0.0)), (FAR, (0.01, 0.0)))
    b = candidates((BOX, (0.8, 0.0)), (FAR, (0.02, 0.0)))
    assert loss(a, b) < 1e-3


def test_the_boxes_of_a_head_that_sorts_them_are_matched():
    a = candidates((BOX, (0.8, 0.0)), (FAR, (0.6, 0.0)))
    b = candidates((FAR, (0.6, 0.0)), (BOX, (0.8, 0.0)))
    assert loss(a, b, SORTED) == pytest.approx(0, abs=1e-6)
    assert loss(a, candidates((BOX, (0.8, 0.0))), SORTED) == pytest.approx(0.36 / (0.36 + 0.64))


def test_images_are_weighted_by_what_is_detected_in_them():
    assert mean_loss([Loss(0.1, 1.0), Loss(0.9, 9.0)]) == pytest.approx(0.1)
    assert mean_loss([]) == 0
    assert mean_loss([Loss(0.0, 0.0)]) == 0
