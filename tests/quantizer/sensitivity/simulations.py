"""Simulations of the tiny models, one of which has a layer that cannot be quantized well."""

import onnx
from onnx import numpy_helper

from quantizer.calibration.statistics import observe
from quantizer.int8 import Range, Scheme
from quantizer.model.graph import Graph
from quantizer.qdq.bias import averaged_tensors
from quantizer.qdq.placement import plan_placement
from quantizer.qdq.quantize import Ranges
from quantizer.qdq.weights import Weights
from quantizer.sensitivity.simulation import Simulation, find_samples
from quantizer.sensitivity.sqnr import Reading
from service.vision.heads import HEADS
from tests.quantizer.graphs import graph_of, images
from tests.tiny_models import INPUT, yolov5

YOLOV5 = HEADS["yolov5"]


def simulation_of(name: str, **asked: str) -> Simulation:
    """With the statistics of the layers that are not `asked` to stay float, as in a build."""
    reading = Reading.of(HEADS.get(name, YOLOV5), INPUT)
    graph = Graph.of(sabotaged()) if name == "sabotaged" else graph_of(name)
    placement = plan_placement(graph, asked)
    averaged = averaged_tensors(graph, placement)
    collected = observe(graph, placement.tensors, images(8), 1, averaged)
    ranges = Ranges(graph, collected.histograms, "uh", Scheme(), Range(0.0, 1.0))
    samples = find_samples(graph.model, reading, images(8), 1)
    means = collected.channel_means
    return Simulation(graph, ranges, Weights(graph), means, samples, 1)


def sabotaged() -> onnx.ModelProto:
    """One input channel of detect8 has ten thousand times the range of the others, and detect8
    divides it again: in float nothing changes, in int8 the other channels are lost."""
    model = yolov5()
    names = ("n8.cv.weight", "n8.cv.bias", "detect8.weight")
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    weight, bias, reader = (numpy_helper.to_array(tensors[name]).copy() for name in names)
    bias[0] += 30.0  # far into SiLU's linear part
    weight[0] *= 1e4
    bias[0] *= 1e4
    reader[:, 0] /= 1e4
    for name, values in zip(names, (weight, bias, reader), strict=True):
        tensors[name].CopyFrom(numpy_helper.from_array(values, name))
    return model
