"""The architectures of the speed table are the published ones."""

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import shape_inference

from quantizer.model.float_model import FloatModel
from quantizer.model.graph import Graph
from quantizer.model.layout import recognise

SCRIPT = Path(__file__).parent.parent / "bench" / "architectures.py"
SHAPE = (1, 25200, 85)

# Millions of parameters and GFLOP as the repositories print them, fused, at 640x640.
PUBLISHED = [
    ("yolov5n", 1.87, 4.5),
    ("yolov5s", 7.23, 16.5),
    ("yolov5m", 21.17, 49.0),
    ("yolov7", 36.9, 104.7),
    ("yolov7x", 71.3, 189.9),
]


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("architectures", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("name", "millions", "gflop"), PUBLISHED)
def test_the_architecture_is_the_published_one(bench, name, millions, gflop):
    model = bench.ARCHITECTURES[name]()
    onnx.checker.check_model(model, full_check=True)
    model = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    graph = Graph.of(model)
    size = bench.size_of(graph)
    assert size.parameters / 1e6 == pytest.approx(millions, rel=0.01)
    assert 2 * size.macs / 1e9 == pytest.approx(gflop, rel=0.02)
    assert graph.shapes["output"] == SHAPE
    layout = recognise(FloatModel(model, bench.SIZE, SHAPE, {}))
    assert (layout.head, layout.preprocess) == ("yolov5", "yolo")


def test_the_smallest_runs_and_sees_next_to_nothing(bench):
    session = ort.InferenceSession(bench.ARCHITECTURES["yolov5n"]().SerializeToString())
    image = np.random.default_rng(1).random((1, 3, bench.SIZE, bench.SIZE), np.float32)
    (rows,) = session.run(["output"], {"images": image})
    assert rows.shape == SHAPE
    assert np.isfinite(rows).all()
    assert (rows[..., 4:5] * rows[..., 5:]).max() < 0.25


def test_the_weights_are_the_same_every_time(bench):
    first, second = (bench.ARCHITECTURES["yolov5n"]().SerializeToString() for _ in range(2))
    assert first == second


def test_the_pictures_can_be_calibrated_on(bench, tmp_path):
    drawn = sorted(bench.draw_pictures(tmp_path / "pictures").iterdir())
    assert len(drawn) == bench.PICTURES
