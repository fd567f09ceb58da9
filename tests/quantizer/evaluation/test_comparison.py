import numpy as np

from quantizer.evaluation.comparison import Example, with_most_boxes
from service.vision.detections import Detections


def boxes(count: int) -> Detections:
    corners = np.tile(np.array([[0, 0, 5, 5]], np.float32), (count, 1))
    return Detections(corners, np.full(count, 0.5, np.float32), np.zeros(count, np.int64))


def example(name: str, fp32: int, int8: int) -> Example:
    return Example(name, np.zeros((8, 8, 3), np.uint8), boxes(fp32), boxes(int8))


def test_the_examples_are_the_images_with_most_boxes_first():
    images = [example(str(count), count, count) for count in (1, 5, 3, 2, 4, 6)]
    assert [each.name for each in with_most_boxes(images)] == ["6", "5", "4", "3"]
    images = [example("no box", 0, 0), example("only int8", 0, 1), example("both", 1, 1)]
    assert [each.name for each in with_most_boxes(images)] == ["both", "only int8"]
