"""The graph for TensorRT breaks no rule and, executed as written, keeps the accuracy."""

import random
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from bench.quantization import tensorrt_graph as bench
from quantizer.compile.conformance import check
from quantizer.config import AnnotatedDataset, BuildConfig
from quantizer.evaluation.detectors import describe
from quantizer.int8 import Range, Scheme, WeightScheme, activation_params
from quantizer.model.execution import open_session
from quantizer.model.float_model import read_float_model
from quantizer.model.graph import Graph
from quantizer.qdq.float16 import to_float16
from quantizer.qdq.format import TENSORRT
from quantizer.qdq.insertion import insert_qdq
from quantizer.qdq.placement import plan_placement
from quantizer.qdq.weights import Weights
from tests.quantizer.graphs import graph_of
from tests.shared import COCO_CALIB, COCO_VAL, COCO_VAL_JSON, YOLOV5N, YOLOX_NANO, needs_shared
from tests.tiny_models import TINY, Sketch

CALIBRATING = 36  # photos: fewer than a user should take, and enough to keep the accuracy
# dB, below the default: a shorter search, and fewer float layers to keep the same accuracy.
MIN_SQNR = (17.0, 15.0)


def quantized(graph: Graph, floats: list[str]) -> onnx.ModelProto:
    """With these layers float, and one range for all tensors, which the rules do not check."""
    placement = plan_placement(graph, dict.fromkeys(floats, "named"), TENSORRT)
    params = activation_params(Range(-0.2785, 4.0), Scheme(symmetric=True, half=True))
    sites = (*placement.activations, *placement.propagated)
    weights = Weights(graph, WeightScheme(half=True))
    return insert_qdq(graph, placement, {site.tensor: params for site in sites}, weights)


# Every float region breaks these: its inputs are int8 for the layers around it. And a build leaves
# shapes without an int8 kernel, which tiny models have, to the runtime.
OF_FLOAT_REGIONS = {
    "both_inputs_are_quantized",
    "concat_has_one_scale",
    "convolution_has_an_int8_kernel",
}


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("seed", range(4))
def test_float_regions_break_no_other_rules(name, seed):
    graph = graph_of(name)
    layers = plan_placement(graph).layers
    floats = random.Random(seed).sample(layers, (seed + 1) * len(layers) // 5)
    model = quantized(graph, floats)
    for typed in (model, to_float16(model)):
        assert {finding.rule for finding in check(typed)} <= OF_FLOAT_REGIONS


@needs_shared
@pytest.mark.parametrize("path", [YOLOV5N, YOLOX_NANO], ids=lambda path: path.stem)
def test_real_models_break_no_rule(path):
    model = quantized(read_float_model(path, 640).graph, [])
    assert check(model) == check(to_float16(model)) == []


def int8_ap(path: Path, min_sqnr: float, folder: Path) -> float:
    """On one thread, calibrated on the first photos."""
    photos = folder / path.stem
    photos.mkdir()
    for photo in sorted(COCO_CALIB.iterdir())[:CALIBRATING]:
        (photos / photo.name).symlink_to(photo)
    config = BuildConfig(path, photos, min_sqnr=min_sqnr, threads=1)
    detector, int8 = bench.quantized(config, lambda _: None)
    graphs = {"int8": bench.in_float16(to_float16(int8))}
    annotated, manifest = AnnotatedDataset(COCO_VAL, COCO_VAL_JSON), describe(path, detector)
    return bench.accuracy(graphs, manifest, annotated, lambda _: None, 1).variants["int8"].ap


@needs_shared
def test_symmetric_int8_with_float16_regions_keeps_the_accuracy(tmp_path):
    """Both models at the same time: two cores are faster with one model each than on one."""
    limits = {YOLOV5N: 0.3253 - 0.005, YOLOX_NANO: 0.3465 - 0.010}  # fp32's AP less a loss
    with ProcessPoolExecutor(len(limits), get_context("spawn")) as pool:
        aps = list(pool.map(int8_ap, limits, MIN_SQNR, [tmp_path] * len(limits)))
    for path, ap in zip(limits, aps, strict=True):
        assert ap >= limits[path], path.stem


def test_the_emulation_rounds_to_float16_after_each_operator():
    s = Sketch((1, 3, 8, 8), opset=19)
    x = s.silu("x", s.node("Cast", "half", "images", to=TensorProto.FLOAT16))
    model = s.model(s.node("Cast", "float", x, to=TensorProto.FLOAT), rank=4)
    typed = onnx.shape_inference.infer_shapes(model)
    values = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    (found,) = open_session(bench.in_float16(typed), 1).run(None, {"images": values})
    half = values.astype(np.float16)
    gate = (1 / (1 + np.exp(-half.astype(np.float32)))).astype(np.float16)
    np.testing.assert_allclose(found, half * gate, rtol=2**-10, atol=1e-7)
    assert (found == found.astype(np.float16)).all()
