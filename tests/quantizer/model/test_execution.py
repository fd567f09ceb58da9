import threading
from collections.abc import Iterator

import numpy as np
import onnx
import pytest

from quantizer.model.execution import AT_ONCE, over_images
from tests.tiny_models import SIZE, Sketch


@pytest.fixture(scope="module")
def doubling() -> onnx.ModelProto:
    s = Sketch()
    return s.model(s.plus("twice", "images", 1.0), rank=4)


def flat(*levels: float) -> Iterator[np.ndarray]:
    for level in levels:
        yield np.full((1, 3, SIZE, SIZE), level, np.float32)


def level(number: int, image: np.ndarray, outputs: list[np.ndarray]) -> tuple[int, float, float]:
    return number, float(image.max()), float(outputs[0].max())


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_the_order_of_the_images(doubling, threads):
    found = list(over_images(doubling, flat(3, 1, 2, 5, 4), threads, level))
    assert found == [(0, 3, 4), (1, 1, 2), (2, 2, 3), (3, 5, 6), (4, 4, 5)]
    assert list(over_images(doubling, flat(), threads, level)) == []


def test_images_are_read_as_needed(doubling):
    read = []

    def images() -> Iterator[np.ndarray]:
        for number, image in enumerate(flat(*range(50))):
            read.append(number)
            yield image

    results = over_images(doubling, images(), 2, level)
    next(results)
    assert len(read) <= 2 * AT_ONCE


def test_two_images_are_executed_at_the_same_time(doubling):
    both = threading.Barrier(2, timeout=30)
    waited = list(over_images(doubling, flat(1, 2), 2, lambda *_: both.wait()))
    assert sorted(waited) == [0, 1]


def test_an_error_in_one_image_is_raised(doubling):
    def refuse(number: int, image: np.ndarray, outputs: list[np.ndarray]) -> int:
        if number == 2:
            raise ValueError("the third image")
        return number

    results = over_images(doubling, flat(*range(9)), 2, refuse)
    with pytest.raises(ValueError, match="the third image"):
        list(results)
