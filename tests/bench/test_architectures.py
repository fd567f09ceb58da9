"""The architectures of the speed table are the published ones."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import shape_inference

from bench.quantization.architectures import PICTURES, draw_pictures, size_of
from quantizer.calibration.images import ImageFiles, find_images
from quantizer.model.float_model import FloatModel
from quantizer.model.graph import Graph
from quantizer.model.layout import recognise
from quantizer.study.networks import ARCHITECTURES, SIZE
from service.vision.input_size import InputSize
from service.vision.preprocess import PREPROCESS

SHAPE = (1, 25200, 85)

# Millions of parameters and GFLOP as the repositories print them, fused, at 640x640.
PUBLISHED = [
    ("yolov5n", 1.87, 4.5),
    ("yolov5s", 7.23, 16.5),
    ("yolov5m", 21.17, 49.0),
    ("yolov7", 36.9, 104.7),
    ("yolov7x", 71.3, 189.9),
]


@pytest.mark.parametrize(("name", "millions", "gflop"), PUBLISHED)
def test_the_architecture_is_the_published_one(name, millions, gflop):
    model = ARCHITECTURES[name]()
    onnx.checker.check_model(model, full_check=True)
    model = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    graph = Graph.of(model)
    size = size_of(graph)
    assert size.parameters / 1e6 == pytest.approx(millions, rel=0.01)
    assert 2 * size.macs / 1e9 == pytest.approx(gflop, rel=0.02)
    assert graph.shapes["output"] == SHAPE
    layout = recognise(FloatModel(graph, InputSize.of(SIZE), {})).layout
    assert (layout.head, layout.preprocess) == ("yolov5", "yolo")


def test_random_weights_give_finite_low_scores():
    session = ort.InferenceSession(ARCHITECTURES["yolov5n"]().SerializeToString())
    image = np.random.default_rng(1).random((1, 3, SIZE, SIZE), np.float32)
    (rows,) = session.run(["output"], {"images": image})
    assert rows.shape == SHAPE
    assert np.isfinite(rows).all()
    assert (rows[..., 4:5] * rows[..., 5:]).max() < 0.25


def test_the_weights_are_reproducible():
    first, second = (ARCHITECTURES["yolov5n"]().SerializeToString() for _ in range(2))
    assert first == second


def test_drawn_pictures_can_be_calibrated_on(tmp_path):
    paths = find_images(draw_pictures(tmp_path / "pictures"))
    files = ImageFiles(paths, InputSize.of(SIZE), PREPROCESS["yolo"])
    assert len(list(files.decodable())) == PICTURES
