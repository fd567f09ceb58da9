"""The graph that TensorRT gets: it breaks no rule, and executed as it says it keeps the accuracy."""

import random
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from quantizer.conformance import check
from quantizer.dialect import TENSORRT
from quantizer.float16 import to_float16
from quantizer.float_model import read_float_model
from quantizer.graph import Graph
from quantizer.int8 import Range, Scheme, WeightScheme, activation_params
from quantizer.layout import recognise
from quantizer.placement import plan_placement
from quantizer.qdq import insert_qdq
from quantizer.recipe import MIN_SQNR
from quantizer.weights import Weights
from tests.shared import COCO_CALIB, COCO_VAL, COCO_VAL_JSON, YOLOV5N, YOLOX_NANO, needs_shared
from tests.tiny_models import SIZE, TINY, save_tiny

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(BENCH))
    import tensorrt_graph

    sys.path.remove(str(BENCH))
    return tensorrt_graph


def quantized(graph: Graph, floats: list[str]) -> onnx.ModelProto:
    """With these layers float, and one range for all, which rules do not look at."""
    placement = plan_placement(graph, dict.fromkeys(floats, "asked for"), TENSORRT)
    params = activation_params(Range(-0.2785, 4.0), Scheme(symmetric=True, half=True))
    sites = (*placement.activations, *placement.echoes)
    weights = Weights(graph, WeightScheme(half=True))
    return insert_qdq(graph, placement, {site.tensor: params for site in sites}, weights)


def require_no_findings(graph: Graph, floats: list[str]) -> None:
    model = quantized(graph, floats)
    for typed in (model, to_float16(model)):
        # Of shapes without an int8 kernel the runtime is asked, and tiny models are all of them.
        found = [each for each in check(typed) if each.rule != "int8-convolution-shape"]
        assert found == []


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("seed", range(4))
def test_whatever_layers_stay_float_no_rule_is_broken(name, seed, tmp_path):
    graph = read_float_model(save_tiny(tmp_path, name), SIZE).graph
    layers = plan_placement(graph).layers
    require_no_findings(graph, random.Random(seed).sample(layers, seed * len(layers) // 4))


@needs_shared
@pytest.mark.parametrize("path", [YOLOV5N, YOLOX_NANO], ids=lambda path: path.stem)
def test_real_models_break_no_rule(path):
    graph = read_float_model(path, 640).graph
    require_no_findings(graph, [])
    require_no_findings(graph, list(plan_placement(graph).layers[::3]))


@needs_shared
@pytest.mark.parametrize(
    ("path", "most"), [(YOLOV5N, 0.005), (YOLOX_NANO, 0.010)], ids=["yolov5n", "yolox_nano"]
)
def test_symmetric_int8_with_float16_islands_keeps_the_accuracy(bench, path, most):
    model = read_float_model(path, bench.SIZE)
    layout = recognise(model)
    int8 = bench.quantized(model, layout, COCO_CALIB, MIN_SQNR, lambda _: None)
    found = bench.accuracy(model, layout, int8, COCO_VAL, COCO_VAL_JSON, lambda _: None).variants
    assert found["int8"].ap >= found["fp32"].ap - most
    assert found["fp16"].ap >= found["fp32"].ap - most


def test_the_emulation_rounds_to_float16_after_each_operator(bench):
    from quantizer.execution import open_session

    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 8, 8])
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT16),
        helper.make_node("Sigmoid", ["x"], ["gate"]),
        helper.make_node("Mul", ["x", "gate"], ["silu"]),
        helper.make_node("Cast", ["silu"], ["y"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(nodes, "silu", [image], [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    typed = onnx.shape_inference.infer_shapes(model)
    values = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    (found,) = open_session(bench.in_float16(typed), 1).run(None, {"images": values})
    half = values.astype(np.float16)
    gate = (1 / (1 + np.exp(-half.astype(np.float32)))).astype(np.float16)
    np.testing.assert_allclose(found, half * gate, rtol=2**-10, atol=1e-7)
    assert (found == found.astype(np.float16)).all()
