"""Insert Q/DQ pairs: a placement and its parameters -> a copy of the graph."""

from collections.abc import Mapping
from copy import deepcopy

import numpy as np
import onnx
from onnx import helper, numpy_helper

from quantizer.int8 import QuantParams
from quantizer.model.graph import Graph, layer_name
from quantizer.qdq.placement import Placement
from quantizer.qdq.weights import QuantizedWeight, Weights


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
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, onnx.TensorProto] = {}
    for name, weight in by_tensor.items():
        nodes.append(_dequantized_weight(name, weight, constants))
    if graph.input in quantized:
        nodes.extend(_pair(graph.input, params[graph.input], constants))
    for original in graph.nodes:
        node = deepcopy(original)
        for index, name in enumerate(original.input):
            is_weight = name in by_tensor and layer_name(original) in int8_layers
            if name in quantized or is_weight:
                node.input[index] = _dequantized(name)
        nodes.append(node)
        for name in original.output:
            if name in quantized:
                nodes.extend(_pair(name, params[name], constants))
    return _with(graph.model, nodes, constants)


def _dequantized(name: str) -> str:
    return f"{name}/dequantized"


def _pair(
    name: str, params: QuantParams, constants: dict[str, onnx.TensorProto]
) -> list[onnx.NodeProto]:
    scale, zero, steps = f"{name}/scale", f"{name}/zero_point", f"{name}/quantized"
    constants[scale] = numpy_helper.from_array(params.scale, scale)
    constants[zero] = numpy_helper.from_array(params.zero_point, zero)
    clip = [] if params.bits == 8 else [_clip(name, params, constants)]
    source = clip[0].output[0] if clip else name
    return [
        *clip,
        helper.make_node("QuantizeLinear", [source, scale, zero], [steps], name=steps),
        helper.make_node(
            "DequantizeLinear", [steps, scale, zero], [_dequantized(name)], name=_dequantized(name)
        ),
    ]


def _clip(name: str, params: QuantParams, constants: dict[str, onnx.TensorProto]) -> onnx.NodeProto:
    """To the values of the lowest and the highest step in use."""
    ends = (np.array(params.limits) - int(params.zero_point)) * params.scale
    bounds = [f"{name}/low", f"{name}/high"]
    for bound, end in zip(bounds, ends.astype(np.float32), strict=True):
        constants[bound] = numpy_helper.from_array(np.array(end), bound)
    clipped = f"{name}/clipped"
    return helper.make_node("Clip", [name, *bounds], [clipped], name=clipped)


def _dequantized_weight(
    name: str, weight: QuantizedWeight, constants: dict[str, onnx.TensorProto]
) -> onnx.NodeProto:
    parts = {
        f"{name}/quantized": weight.steps,
        f"{name}/scale": weight.params.scale,
        f"{name}/zero_point": weight.params.zero_point,
    }
    constants |= {part: numpy_helper.from_array(value, part) for part, value in parts.items()}
    dequantized, axis = _dequantized(name), weight.params.axis
    return helper.make_node(
        "DequantizeLinear", list(parts), [dequantized], name=dequantized, axis=axis
    )


def _with(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], constants: dict[str, onnx.TensorProto]
) -> onnx.ModelProto:
    """A copy with these nodes and constants, without the constants that no node reads any more."""
    copy = deepcopy(model)
    copy.graph.ClearField("node")
    copy.graph.node.extend(nodes)
    copy.graph.ClearField("value_info")
    read = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    copy.graph.ClearField("initializer")
    copy.graph.initializer.extend([*kept, *constants.values()])
    return copy
