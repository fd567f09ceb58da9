"""A graph in float32 -> the same graph in float16, with explicit types.

The image enters as float32 and the decode tail stays float32: near 640, float16 resolves a
coordinate only to half a pixel.
"""

from copy import deepcopy
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, checker, helper, numpy_helper, shape_inference, version_converter

from quantizer.errors import BuildFailed
from quantizer.model.decode_tail import decode_tail
from quantizer.model.graph import Graph

OPSET: Final = 19  # the first in which QuantizeLinear and DequantizeLinear take float16
LARGEST: Final = float(np.finfo(np.float16).max)
# Positions of the inputs that the operator defines as float32.
ALWAYS_FLOAT32: Final = {"Resize": {1, 2}}


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with a Cast after the image and before the decode tail; raises BuildFailed."""
    try:
        copy = version_converter.convert_version(model, OPSET)
    except Exception as exc:  # the converter raises RuntimeError and classes of its own
        raise BuildFailed(f"the graph cannot be written in opset {OPSET}: {exc}") from exc
    graph = Graph.of(copy)
    tail = {node.output[0] for node in decode_tail(graph)}
    body = [node for node in graph.nodes if node.output[0] not in tail]
    _retype_constants(copy, graph, body)
    for node in body:
        for each in node.attribute:
            if (node.op_type, each.name, each.i) == ("Cast", "to", TensorProto.FLOAT):
                each.i = TensorProto.FLOAT16
    _cast_at_the_borders(copy, graph, body, tail)
    copy.graph.ClearField("value_info")
    try:
        copy = shape_inference.infer_shapes(copy, strict_mode=True, data_prop=True)
        checker.check_model(copy, full_check=True)
    except Exception as exc:  # the libraries raise many classes, all about this graph
        raise BuildFailed(f"the graph cannot be written in float16: {exc}") from exc
    return copy


def _retype_constants(copy: onnx.ModelProto, graph: Graph, body: list[onnx.NodeProto]) -> None:
    """The float32 constants that the body reads become float16 under a new name."""
    halves: dict[str, onnx.TensorProto] = {}
    for node in body:
        fixed = ALWAYS_FLOAT32.get(node.op_type, set())
        for index, name in enumerate(node.input):
            tensor = graph.constants.get(name)
            if tensor is None or tensor.data_type != TensorProto.FLOAT or index in fixed:
                continue
            if name not in halves:
                values = np.clip(numpy_helper.to_array(tensor), -LARGEST, LARGEST)
                half = numpy_helper.from_array(values.astype(np.float16), f"{name}/float16")
                halves[name] = half
            node.input[index] = halves[name].name
    read = {name for node in copy.graph.node for name in node.input}
    kept = [tensor for tensor in copy.graph.initializer if tensor.name in read]
    copy.graph.ClearField("initializer")
    copy.graph.initializer.extend([*kept, *halves.values()])


def _cast_at_the_borders(
    copy: onnx.ModelProto, graph: Graph, body: list[onnx.NodeProto], tail: set[str]
) -> None:
    """To float16 where the image enters; to float32 for each tensor that the tail or the caller
    reads."""
    image = f"{graph.input}/float16"
    others = {
        value.name
        for value in copy.graph.value_info
        if value.type.tensor_type.elem_type != TensorProto.FLOAT
    }
    halves = {name for node in body for name in node.output} - others
    leaving = halves.intersection(graph.outputs)
    inside = {graph.input: image} | {name: f"{name}/float16" for name in leaving}
    nodes = [_cast(graph.input, image, TensorProto.FLOAT16)]
    lifted: dict[str, str] = {}
    for original in graph.nodes:
        node = deepcopy(original)
        in_tail = node.output[0] in tail
        for index, name in enumerate(node.input):
            if not in_tail:
                node.input[index] = inside.get(name, name)
            elif name in halves:
                if name not in lifted:
                    lifted[name] = f"{name}/float32"
                    nodes.append(_cast(name, lifted[name], TensorProto.FLOAT))
                node.input[index] = lifted[name]
        for index, name in enumerate(node.output):
            node.output[index] = inside.get(name, name)
        nodes.append(node)
    nodes += [_cast(inside[name], name, TensorProto.FLOAT) for name in sorted(leaving)]
    copy.graph.ClearField("node")
    copy.graph.node.extend(nodes)


def _cast(source: str, target: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], target, to=to)
