import numpy as np

from quantizer.report.page import MOST_SAMPLES, Seen, most_telling
from service.vision.detections import Detections


def boxes(count: int) -> Detections:
    corners = np.tile(np.array([[0, 0, 5, 5]], np.float32), (count, 1))
    return Detections(corners, np.full(count, 0.5, np.float32), np.zeros(count, np.int64))


def seen(name: str, reference: int, candidate: int) -> Seen:
    return Seen(name, np.zeros((8, 8, 3), np.uint8), boxes(reference), boxes(candidate))


def test_the_samples_are_the_images_with_most_boxes_first():
    images = [seen(str(count), count, count) for count in (1, 5, 3, 2, 4, 6)]
    assert [each.name for each in most_telling(images)] == ["6", "5", "4", "3"]
    assert MOST_SAMPLES == 4


def test_an_image_in_which_neither_sees_anything_is_no_sample():
    images = [seen("nothing", 0, 0), seen("only int8", 0, 1), seen("both", 1, 1)]
    assert [each.name for each in most_telling(images)] == ["both", "only int8"]
