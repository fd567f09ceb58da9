"""Tensors with outlier channels, and what int8 makes of them in ONNX Runtime."""

import numpy as np
import onnx
import pytest

from quantizer.calibration.analytic_bounds import lower_bounds
from quantizer.calibration.channels import measure_channels
from quantizer.calibration.statistics import observe
from quantizer.int8 import Range, Scheme
from quantizer.model.graph import Graph
from quantizer.qdq.equalisation import equalise, find_factors, find_readers
from quantizer.qdq.placement import plan_placement
from quantizer.qdq.quantize import Ranges, quantize
from quantizer.qdq.weights import Weights
from tests.quantizer.graphs import by_onnxruntime
from tests.tiny_models import Sketch

CHANNELS = 8
FLOATS = {"stem": "not tried", "last": "not tried"}


def network(outlier: float, *kinds: str, added: bool = False) -> Graph:
    """stem -> SiLU -> a convolution of each kind -> last; one channel of SiLU is `outlier` times
    as large as the others. `added`: a residual Add reads SiLU's output as well."""
    random, s = np.random.default_rng(5), Sketch((1, 3, 16, 16))

    def weight(*shape: int) -> np.ndarray:
        return random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))

    stem = weight(CHANNELS, 3, 1, 1)
    stem[0] = outlier * np.abs(stem[0])  # positive, so that SiLU passes it
    x = s.node("Conv", "stem", "images", s.constant("w", stem, np.float32))
    x = s.silu("stem", x)
    read = []
    for kind in kinds:
        groups = {"dense": 1, "depthwise": CHANNELS, "grouped": 2}[kind]
        values = weight(CHANNELS, CHANNELS // groups, 3, 3)
        values[:, 0] /= 1 if kind == "depthwise" else outlier  # so that every channel matters
        name = s.constant(f"{kind}.w", values, np.float32)
        read.append(s.node("Conv", kind, x, name, group=groups, pads=[1, 1, 1, 1]))
    joined = s.node("Concat", "joined", *read, *([x] if added else []), axis=1)
    width = CHANNELS * (len(read) + added)
    last = s.constant("last.w", weight(2, width, 1, 1), np.float32)
    model = s.model(s.node("Conv", "last", joined, last), rank=4)
    return Graph.of(onnx.shape_inference.infer_shapes(model))


def images(count: int = 4) -> list[np.ndarray]:
    random = np.random.default_rng(2)
    return [random.random((1, 3, 16, 16), np.float32) for _ in range(count)]


def factors_of(graph: Graph) -> dict[str, np.ndarray]:
    readers = find_readers(graph, plan_placement(graph, FLOATS))
    channels = measure_channels(graph, list(readers), images(), 1)
    return find_factors(readers, channels, lower_bounds(graph))


def int8_noise(graph: Graph, tensors: list[str]) -> float:
    """Of the tensors in int8: the mean over their channels of noise over variance."""
    placement = plan_placement(graph, FLOATS)
    collected = observe(graph, placement.tensors, images(), 1)
    ranges = Ranges(graph, collected.histograms, "uh", Scheme(), Range(0, 1))
    quantized = Graph.of(quantize(graph, placement, ranges, Weights(graph)).model)
    shares = []
    for image in images():
        for tensor in tensors:
            exact, rounded = (
                by_onnxruntime(each.with_outputs([tensor]), image)[0].reshape(CHANNELS, -1)
                for each in (graph, quantized)
            )
            shares.append(((rounded - exact) ** 2).mean(axis=1) / exact.var(axis=1))
    return float(np.mean(shares))


@pytest.mark.parametrize("kinds", [("dense",), ("depthwise",), ("dense", "depthwise")])
def test_an_outlier_channel_costs_the_others_less(kinds):
    graph = network(60.0, *kinds)
    factors = factors_of(graph)
    assert list(factors) == ["stem.act.y"]
    assert factors["stem.act.y"].min() == 1 < factors["stem.act.y"].max()
    outputs = [f"{kind}.y" for kind in kinds]
    assert int8_noise(equalise(graph, factors), outputs) < int8_noise(graph, outputs) / 4


def test_the_float_graph_computes_the_same():
    graph = network(60.0, "dense", "depthwise")
    changed = equalise(graph, factors_of(graph))
    assert "stem.act.y/equalised" in changed.producer
    assert changed.shapes["stem.act.y/equalised"] == (1, CHANNELS, 16, 16)
    for image in images():
        expected = by_onnxruntime(graph.model, image)
        np.testing.assert_allclose(by_onnxruntime(changed.model, image), expected, atol=1e-4)


def test_the_lower_bound_is_multiplied_too():
    graph = network(60.0, "dense")
    factors = factors_of(graph)["stem.act.y"]
    bounds = lower_bounds(equalise(graph, {"stem.act.y": factors}))
    assert bounds["stem.act.y/equalised"] == pytest.approx(-0.2785 * factors.max())


@pytest.mark.parametrize(
    "graph",
    [
        network(1.0, "dense", "depthwise"),
        network(60.0, "grouped"),
        network(60.0, "dense", added=True),
    ],
    ids=["no outlier", "a convolution in groups", "another reader"],
)
def test_other_tensors_stay_as_they_are(graph):
    assert factors_of(graph) == {}
    assert equalise(graph, {}) is graph
