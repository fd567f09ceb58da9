import numpy as np
import pytest

from quantizer.sensitivity.sqnr import LOST, Reading, Reference, decibels, from_decibels, relative
from service.vision.heads import HEADS
from service.vision.input_size import InputSize

SIZE = 64
YOLOV5, END2END = (Reading.of(HEADS[name], InputSize.of(SIZE)) for name in ("yolov5", "end2end"))


def raw(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array([rows], np.float32)


# centre x, y, width, height, objectness, two classes
SURE = (20.0, 20.0, 10.0, 10.0, 1.0, 0.8, 0.1)
DOUBTFUL = (40.0, 40.0, 10.0, 10.0, 1.0, 0.05, 0.0)
NOTHING = (50.0, 50.0, 30.0, 10.0, 0.001, 0.5, 0.5)


def changed(row: tuple[float, ...], **values: float) -> tuple[float, ...]:
    places = {"x": 0, "width": 2, "objectness": 4, "first": 5}
    row = list(row)
    for name, value in values.items():
        row[places[name]] = value
    return tuple(row)


def noise(reference: np.ndarray, output: np.ndarray, reading: Reading = YOLOV5) -> float:
    detected = Reference.of([reference], reading)
    return relative([detected.noise([output])], [detected])


def signal(reference: np.ndarray) -> float:
    return Reference.of([reference], YOLOV5).signal


def test_equal_outputs_have_no_noise():
    both = raw(SURE, DOUBTFUL, NOTHING)
    assert noise(both, both) == 0


def test_the_signal_is_the_squared_scores():
    assert signal(raw(SURE)) == pytest.approx(0.8**2 + 0.1**2)
    assert signal(raw(NOTHING)) < 1e-6


def test_a_changed_score_counts_by_its_square():
    power = 0.8**2 + 0.1**2
    assert noise(raw(SURE), raw(changed(SURE, first=0.6))) == pytest.approx(0.2**2 / power)
    assert noise(raw(SURE), raw(changed(SURE, first=0.7))) == pytest.approx(0.1**2 / power)


def test_a_moved_box_counts_by_its_score_and_the_overlap_it_lost():
    power = 0.8**2 + 0.1**2
    moved = noise(raw(SURE), raw(changed(SURE, x=25.0)))  # 5 of 10 pixels: IoU 1/3
    assert moved == pytest.approx((0.8 * (2 / 3) / LOST) ** 2 / power, rel=1e-5)


def test_changes_of_the_background_hardly_count():
    reference = raw(SURE, NOTHING)
    elsewhere = noise(reference, raw(SURE, changed(NOTHING, x=20.0, width=5.0)))
    same_on_the_object = noise(reference, raw(changed(SURE, x=25.0), NOTHING))
    assert elsewhere < 1e-5 * same_on_the_object


def test_a_new_false_box_is_noise():
    assert noise(raw(SURE, NOTHING), raw(SURE, changed(NOTHING, objectness=1.0))) > 0.5


def test_the_noise_of_several_images_is_relative_to_their_common_signal():
    shaken = raw(changed(SURE, first=0.6))
    one = noise(raw(SURE), shaken)
    detected = Reference.of([raw(SURE)], YOLOV5)
    both = relative([detected.noise([shaken]), detected.noise([raw(SURE)])], [detected, detected])
    assert both == pytest.approx(one / 2)


def test_where_nothing_is_detected_the_ratio_is_finite():
    assert np.isfinite(noise(raw(NOTHING), raw(SURE)))


def test_an_end_to_end_model_may_have_a_box_in_another_row():
    """Such a model sorts its boxes, so rows do not correspond."""
    a, b = (0.0, 0.0, 10.0, 10.0, 0.9, 1.0), (30.0, 30.0, 50.0, 50.0, 0.5, 0.0)
    swapped = noise(raw(a, b), raw(b, a), END2END)
    assert swapped == 0
    lost = noise(raw(a, b), raw(b), END2END)
    assert lost == pytest.approx(0.9**2 / (0.9**2 + 0.5**2))


def test_noise_to_decibels_and_back():
    assert decibels(0.01) == pytest.approx(20)
    assert from_decibels(decibels(0.0345)) == pytest.approx(0.0345)
    assert decibels(0.0) == pytest.approx(120)
