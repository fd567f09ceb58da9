"""What convolutions have to multiply."""

from collections.abc import Collection, Mapping, Sequence
from math import prod

import onnx

from quantizer.compile.builder import INT8_NAMES
from quantizer.model.graph import Graph, layer_name


def macs(graph: Graph) -> dict[str, int]:
    """The multiply-accumulates of each convolution whose shapes are known."""
    return {
        layer_name(node): prod(graph.shapes[node.output[0]]) * prod(_weight(graph, node)[1:])
        for node in graph.nodes
        if node.op_type == "Conv" and node.output[0] in graph.shapes
    }


def share_in_int8(graph: Graph, executed: Mapping[str, str], planned: Collection[str]) -> float:
    """Of the multiply-accumulates of the planned layers, those of kernels that read int8."""
    counts = macs(graph)
    inside = sum(counts[name] for name in planned if executed.get(name) in INT8_NAMES)
    return inside / max(sum(counts[name] for name in planned), 1)


def _weight(graph: Graph, node: onnx.NodeProto) -> Sequence[int]:
    """The shape of a convolution's weight, which may be behind a DequantizeLinear."""
    weight = graph.producer.get(node.input[1])
    return tuple(graph.constants[node.input[1] if weight is None else weight.input[0]].dims)
