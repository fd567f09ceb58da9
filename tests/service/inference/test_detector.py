import numpy as np

from service.inference.detector import Detector
from service.vision.image import Photo
from service.vision.postprocess import Query
from tests.fakes import FakeEngine, manifest_of
from tests.service.live import FP32_RAW

PHOTO = Photo.from_pixels(np.zeros((100, 200, 3), np.uint8))


def detect(query: Query, raw: np.ndarray = FP32_RAW, **changes: object):
    return Detector(FakeEngine(raw), manifest_of("fp32", **changes)).detect(PHOTO, query)


def test_the_limit_counts_the_boxes_of_the_requested_classes():
    found = detect(Query(classes=frozenset({2}), max_det=1))
    assert found.class_ids.tolist() == [2]


def test_an_end2end_head_keeps_overlapping_boxes_up_to_the_limit():
    raw = np.array([[[0, 0, 9, 9, 0.9, 1], [0, 0, 9, 9, 0.8, 1], [0, 0, 9, 9, 0.7, 1]]], np.float32)
    assert len(detect(Query(iou=0.1, max_det=2), raw, head="end2end")) == 2


def test_warming_up_runs_the_engine_on_its_own_size():
    engine = FakeEngine(FP32_RAW)
    Detector(engine, manifest_of("fp32")).warm_up()
    assert engine.calls == 2
    assert engine.image is not None
    assert engine.image.shape == (1, 64, 64, 3)
