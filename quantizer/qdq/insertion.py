"""Insert Q/DQ pairs: a placement and its parameters -> a copy of the graph."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from quantizer.int8 import QuantParams, Steps
from quantizer.model.graph import Graph, layer_name
from quantizer.qdq.placement import Placement
from quantizer.qdq.weights import QuantizedWeight, Weights
from service.vision.detections import Floats


def insert_qdq(
    graph: Graph,
    placement: Placement,
    params: Mapping[str, QuantParams],
    weights: Weights,
) -> onnx.ModelProto:
    """A new model; `params` has the parameters of each activation, propagated ones too, by tensor.

    Every reader of such a tensor reads the dequantized one: a runtime fuses the pair into the
    kernel that computes the tensor only if no other node needs the float values. Weights are stored
    as int8 with a DequantizeLinear; biases stay float and are folded by the runtime. Below 8 bits,
    where only a part of the steps may be used, a Clip goes before the pair.
    """
    quantized = {site.tensor for site in (*placement.activations, *placement.propagated)}
    by_tensor = {site.tensor: weights.of(site) for site in placement.weights}
    int8_layers = set(placement.layers)
    written = _Writer()
    for name, weight in by_tensor.items():
        written.weight(name, weight)
    if graph.input in quantized:
        written.pair(graph.input, params[graph.input])
    for original in graph.nodes:
        node = deepcopy(original)
        for index, name in enumerate(original.input):
            is_weight = name in by_tensor and layer_name(original) in int8_layers
            if name in quantized or is_weight:
                node.input[index] = _dequantized(name)
        written.nodes.append(node)
        for name in original.output:
            if name in quantized:
                written.pair(name, params[name])
    return written.in_place_of(graph.model)


def _dequantized(name: str) -> str:
    return f"{name}/dequantized"


class _Writer:
    """Collects the nodes and constants of the new graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def pair(self, name: str, params: QuantParams) -> None:
        """Q and DQ of an activation."""
        grid = [
            self._constant(f"{name}/scale", params.scale),
            self._constant(f"{name}/zero_point", params.zero_point),
        ]
        source = name if params.bits == 8 else self._clip(name, params)
        self._node("QuantizeLinear", [source, *grid], f"{name}/quantized")
        self._node("DequantizeLinear", [f"{name}/quantized", *grid], _dequantized(name))

    def weight(self, name: str, weight: QuantizedWeight) -> None:
        """The integers of a weight, and their DQ."""
        parts = {
            "quantized": weight.steps,
            "scale": weight.params.scale,
            "zero_point": weight.params.zero_point,
        }
        inputs = [self._constant(f"{name}/{part}", value) for part, value in parts.items()]
        self._node("DequantizeLinear", inputs, _dequantized(name), axis=weight.params.axis)

    def in_place_of(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A copy of the model with these nodes, without the constants that none of them reads."""
        copy = deepcopy(model)
        read = {name for node in self.nodes for name in node.input}
        kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
        for field in ("node", "value_info", "initializer"):
            copy.graph.ClearField(field)
        copy.graph.node.extend(self.nodes)
        copy.graph.initializer.extend([*kept, *self._constants])
        return copy

    def _clip(self, name: str, params: QuantParams) -> str:
        """To the values of the lowest and the highest step in use."""
        ends = (np.array(params.limits) - int(params.zero_point)) * params.scale
        low, high = ends.astype(np.float32)
        bounds = [self._constant(f"{name}/low", low), self._constant(f"{name}/high", high)]
        return self._node("Clip", [name, *bounds], f"{name}/clipped")

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def _constant(self, name: str, value: Floats | Steps) -> str:
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name
