import numpy as np
import onnx
import pytest

from quantizer.calibration.statistics import observe
from quantizer.model.graph import Graph
from quantizer.qdq.bias import averaged_tensors, correct_biases
from quantizer.qdq.insertion import insert_qdq
from quantizer.qdq.placement import plan_placement
from quantizer.qdq.weights import Weights
from tests.quantizer.graphs import by_onnxruntime
from tests.tiny_models import Sketch


def two_convs(groups: int = 1, with_bias: bool = True, computed_bias: bool = False) -> Graph:
    """conv -> conv, no padding, so that a flat image has flat maps; only the first is quantized."""
    random, s = np.random.default_rng(3), Sketch((1, 3, 8, 8))

    def constant(name: str, *shape: int) -> str:
        return s.constant(name, random.normal(size=shape), np.float32)

    bias = [constant("b1", 8)] if with_bias else []
    if computed_bias:
        bias = [s.plus("computed", "b1", np.zeros(8))]
    x = s.node("Conv", "expand", "images", constant("w0", 4, 3, 1, 1))
    x = s.node("Conv", "first", x, constant("w1", 8, 4 // groups, 3, 3), *bias, group=groups)
    return Graph.of(s.model(s.node("Conv", "last", x, constant("w2", 2, 8, 1, 1)), rank=4))


OTHERS = {"expand": "not tried", "last": "not tried"}


def run(model: onnx.ModelProto, image: np.ndarray, tensor: str) -> np.ndarray:
    return by_onnxruntime(Graph.of(model).with_outputs([tensor]), image)


def flat(level: float) -> np.ndarray:
    return np.full((1, 3, 8, 8), level, np.float32)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("with_bias", [True, False])
def test_on_images_of_the_calibrated_mean_the_corrected_output_is_exact(groups, with_bias):
    graph = two_convs(groups, with_bias)
    placement = plan_placement(graph, OTHERS)
    assert [site.layer for site in placement.weights] == ["first"]
    weights_only = type(placement)((), placement.weights, placement.kept_float)
    observed = observe(graph, [], [flat(0.2), flat(0.6)], 1, averaged_tensors(graph, placement))
    corrected = Graph.of(correct_biases(graph, placement, Weights(graph), observed.channel_means))
    expected = run(graph.model, flat(0.4), "first.y")
    plain = run(insert_qdq(graph, weights_only, {}, Weights(graph)), flat(0.4), "first.y")
    repaired = run(insert_qdq(corrected, weights_only, {}, Weights(graph)), flat(0.4), "first.y")
    assert np.abs(plain - expected).max() > 1e-3
    np.testing.assert_allclose(repaired, expected, atol=1e-5)


def test_only_quantized_layers_change_and_the_input_graph_does_not():
    graph = two_convs()
    before = graph.model.SerializeToString()
    placement = plan_placement(graph, OTHERS)
    means = observe(graph, [], [flat(0.5)], 1, averaged_tensors(graph, placement)).channel_means
    corrected = correct_biases(graph, placement, Weights(graph), means)
    assert graph.model.SerializeToString() == before
    changed = [
        node.name
        for node, old in zip(corrected.graph.node, graph.nodes, strict=True)
        if node.input != old.input
    ]
    assert changed == ["first"]


def test_a_computed_bias_stays_as_it_is():
    graph = two_convs(computed_bias=True)
    placement = plan_placement(graph, OTHERS)
    means = {name: np.ones(4, np.float32) for name in averaged_tensors(graph, placement)}
    corrected = correct_biases(graph, placement, Weights(graph), means)
    assert [list(node.input) for node in corrected.graph.node] == [
        list(node.input) for node in graph.nodes
    ]


def test_the_means_are_those_of_every_channel_over_all_images():
    graph = two_convs()
    images = [np.random.default_rng(seed).random((1, 3, 8, 8), np.float32) for seed in range(3)]
    means = observe(graph, [], images, 1, ("images", "expand.y")).channel_means
    expected = np.mean([image.mean(axis=(0, 2, 3)) for image in images], axis=0)
    np.testing.assert_allclose(means["images"], expected, rtol=1e-5)
    maps = [run(graph.model, image, "expand.y") for image in images]
    np.testing.assert_allclose(
        means["expand.y"], np.mean([m.mean(axis=(0, 2, 3)) for m in maps], axis=0), rtol=1e-4
    )
