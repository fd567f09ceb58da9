"""Bias correction: undo the shift that rounded weights cause in each output channel's mean.

Rounded weights are wrong by a fixed amount, so a convolution's output is off by that amount times
its mean input: a shift, the same for every image, that the next layers add up. The shift is
computed from the mean inputs over the calibration images, and subtracted from the bias, which stays
float.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction"
(2019), section 4.2, with measured means in place of those derived from batch norms. As there, the
zeros that pad the border are ignored.
"""

from collections.abc import Mapping
from copy import deepcopy

import numpy as np
import onnx
from onnx import numpy_helper

from quantizer.model.graph import Graph, attribute, layer_name
from quantizer.qdq.placement import Placement
from quantizer.qdq.weights import Weights
from service.vision.detections import Floats


def averaged_tensors(graph: Graph, placement: Placement) -> tuple[str, ...]:
    """The inputs of the quantized convolutions: the correction needs their channel means."""
    layers = {site.layer for site in placement.weights}
    inputs = [node.input[0] for node in graph.nodes if layer_name(node) in layers]
    return tuple(dict.fromkeys(inputs))


def correct_biases(
    graph: Graph,
    placement: Placement,
    weights: Weights,
    means: Mapping[str, Floats],
) -> onnx.ModelProto:
    """A copy of the float graph with the shift subtracted from each quantized convolution's bias.

    `means` holds f32[C], the mean of each channel, for every tensor of `averaged_tensors`. A bias
    that is computed, not constant, stays as it is.
    """
    sites = {site.layer: site for site in placement.weights}
    copy = deepcopy(graph.model)
    for node in copy.graph.node:
        site = sites.get(layer_name(node))
        has_bias = len(node.input) > 2 and node.input[2] != ""
        if site is None or (has_bias and not graph.is_constant(node.input[2])):
            continue
        error = weights.of(site).values - graph.constant(site.tensor).astype(np.float32)
        shift = _shift(error, means[node.input[0]], attribute(node, "group", 1))
        bias = graph.constant(node.input[2]).astype(np.float32) if has_bias else np.float32(0)
        name = f"{layer_name(node)}/corrected_bias"
        copy.graph.initializer.append(numpy_helper.from_array(bias - shift, name))
        node.input[:] = [*node.input[:2], name]
    return copy


def _shift(error: Floats, mean: Floats, groups: int) -> Floats:
    """f32[O]: how far the errors of the weights shift the mean of each output channel."""
    by_input = error.astype(np.float64).sum(axis=tuple(range(2, error.ndim)))
    inputs = np.repeat(mean.reshape(groups, -1), len(error) // groups, axis=0)
    shift: Floats = (by_input * inputs).sum(axis=1).astype(np.float32)
    return shift
