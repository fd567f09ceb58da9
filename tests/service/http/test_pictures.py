import pickle
from functools import partial

import numpy as np

from service.http.pictures import render
from service.inference.backend import ImageRequest
from service.inference.results import Answer
from service.vision.detections import Detections
from service.vision.postprocess import Query
from tests.fakes import manifest_of


def test_a_request_that_is_to_be_drawn_can_be_sent_to_another_process():
    drawn = partial(render, "image/png", manifest_of("fp32").class_name)
    image = pickle.loads(pickle.dumps(ImageRequest(b"", Query(), render=drawn)))
    box = Detections(
        np.array([[5, 5, 20, 20]], np.float32), np.ones(1, np.float32), np.zeros(1, int)
    )
    answers = [Answer(variant, 40, 30, box, {}) for variant in ("fp32", "int8")]
    pixels = np.zeros((30, 40, 3), np.uint8)
    for some in (answers[:1], answers):
        assert image.render(pixels, some) == drawn(pixels, some)
