import numpy as np

from service.inference.detector import Detector
from service.vision.image import Photo
from service.vision.postprocess import Query
from tests.fakes import FakeEngine, manifest_of, yolov5_raw
from tests.service.live import FP32_RAW

PHOTO = Photo.from_pixels(np.zeros((100, 200, 3), np.uint8))


def detect(query: Query, raw: np.ndarray = FP32_RAW, **changes: object):
    return Detector(FakeEngine(raw), manifest_of("fp32", **changes)).detect(PHOTO, query)


def test_boxes_are_in_source_pixels_best_first_and_free_of_duplicates():
    found = detect(Query())
    assert found.class_ids.tolist() == [0, 2]
    np.testing.assert_allclose(found.scores, [0.9, 0.6])
    np.testing.assert_allclose(found.xyxy, [[75, 37.5, 125, 62.5], [25, 12.5, 50, 37.5]])


def test_detect_is_its_three_stages():
    detector = Detector(FakeEngine(FP32_RAW), manifest_of("fp32"))
    prepared = detector.preprocess(PHOTO)
    found = detector.postprocess(detector.infer(prepared), prepared, Query())
    np.testing.assert_array_equal(found.xyxy, detector.detect(PHOTO, Query()).xyxy)


def test_the_limit_counts_the_boxes_of_the_requested_classes():
    found = detect(Query(classes=frozenset({2}), max_det=1))
    assert found.class_ids.tolist() == [2]


def test_an_end2end_head_keeps_overlapping_boxes_up_to_the_limit():
    raw = np.array([[[0, 0, 9, 9, 0.9, 1], [0, 0, 9, 9, 0.8, 1], [0, 0, 9, 9, 0.7, 1]]], np.float32)
    assert len(detect(Query(iou=0.1, max_det=2), raw, head="end2end")) == 2


def test_boxes_end_at_the_images_edge():
    found = detect(Query(), yolov5_raw([(0.0, 16.0, 20.0, 20.0, 0.9, 0)]))
    np.testing.assert_allclose(found.xyxy, [[0, 0, 31.25, 31.25]])


def test_warming_up_runs_the_engine_on_its_own_size():
    engine = FakeEngine(FP32_RAW)
    Detector(engine, manifest_of("fp32")).warm_up()
    assert engine.calls == 2
    assert engine.tensor is not None
    assert engine.tensor.shape == (1, 3, 64, 64)
