"""Execute only what quantization changes: what comes before is known from the float graph."""

from collections.abc import Collection

import onnx
from onnx import TensorProto, helper

from quantizer.model.graph import Graph


def resumed(model: onnx.ModelProto, original: Graph, known: Collection[str]) -> onnx.ModelProto:
    """A copy of a Q/DQ graph that reads those `known` activations of the float graph `original`
    which it does not change, and computes only what depends on a change.

    Its inputs are the activations that it reads, and the image where it reads that.
    """
    unchanged = {original.input, *original.constants}
    for node in model.graph.node:
        if all(name in unchanged for name in node.input if name):
            unchanged.update(node.output)
    read = {value.name for value in model.graph.output}
    available = {original.input, *unchanged.intersection(known)} - read
    nodes: list[onnx.NodeProto] = []
    for node in reversed(model.graph.node):
        if read.intersection(node.output) - available:
            nodes.append(node)
            read.update(node.input)
            available.difference_update(node.output)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, original.shapes.get(name))
        for name in sorted(available & read)
    ]
    constants = [each for each in model.graph.initializer if each.name in read]
    graph = helper.make_graph(nodes[::-1], "resumed", inputs, model.graph.output, constants)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
