"""What is not executed again must not change a result."""

import numpy as np
import onnx
import pytest

from quantizer.calibration.statistics import observe
from quantizer.int8 import Range, Scheme
from quantizer.model.execution import open_session
from quantizer.model.graph import Graph
from quantizer.qdq.placement import plan_placement
from quantizer.qdq.quantize import Ranges, quantize
from quantizer.qdq.weights import Weights
from quantizer.sensitivity.resumption import resumed
from tests.quantizer.graphs import graph_of, images
from tests.tiny_models import TINY


def computed(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = open_session(model, 1)
    return session.run(None, {each.name: feeds[each.name] for each in session.get_inputs()})


@pytest.mark.parametrize("name", TINY)
def test_a_layer_alone_in_int8_gives_the_same_outputs_from_fewer_nodes(name):
    graph = Graph.of(onnx.shape_inference.infer_shapes(graph_of(name).model))
    every = plan_placement(graph)
    histograms = observe(graph, every.tensors, images(4), 1, ()).histograms
    ranges = Ranges(graph, histograms, "uh", Scheme(), Range(0.0, 1.0))
    (image,) = images(1)
    tensors = [tensor for tensor in every.tensors if tensor != graph.input]
    known = dict(
        zip(tensors, computed(graph.with_outputs(tensors), {graph.input: image}), strict=True)
    )
    known[graph.input] = image
    sizes = []
    for layer in every.layers:
        others = dict.fromkeys((each for each in every.layers if each != layer), "float")
        model = quantize(graph, plan_placement(graph, others), ranges, Weights(graph)).model
        shorter = resumed(model, graph, known)
        whole = computed(model, {graph.input: image})
        for expected, output in zip(whole, computed(shorter, known), strict=True):
            np.testing.assert_array_equal(output, expected)
        sizes.append(len(shorter.graph.node) / len(model.graph.node))
    assert min(sizes) < 0.5 < max(sizes) <= 1


def test_of_an_unchanged_graph_only_the_image_or_what_is_known_is_read():
    graph = Graph.of(onnx.shape_inference.infer_shapes(TINY["yolov5"]()))
    whole = resumed(graph.model, graph, ())
    assert [each.name for each in whole.graph.input] == [graph.input]
    assert len(whole.graph.node) == len(graph.nodes)
