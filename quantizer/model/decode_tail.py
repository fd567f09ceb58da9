"""The decode tail: the nodes between the last convolutions and the outputs."""

import onnx

from quantizer.model.graph import PASS_THROUGH_OPS, Graph


def decode_tail(graph: Graph) -> list[onnx.NodeProto]:
    """The nodes that compute the output from the maps of the last convolutions."""
    return [node for node in _back_from_output(graph) if not _ends_tail(graph, node)]


def last_convolutions(graph: Graph) -> list[onnx.NodeProto]:
    """The convolutions whose maps the decode tail reads."""
    return [node for node in _back_from_output(graph) if _ends_tail(graph, node)]


def _back_from_output(graph: Graph) -> list[onnx.NodeProto]:
    """The decode tail and the last convolutions, in the graph's order."""
    visited: dict[int, onnx.NodeProto] = {}
    waiting = list(graph.outputs)
    while waiting:
        node = graph.producer.get(waiting.pop())
        if node is None or id(node) in visited:
            continue
        visited[id(node)] = node
        if not _ends_tail(graph, node):
            waiting.extend(graph.activations_of(node))
    return [node for node in graph.nodes if id(node) in visited]


def _ends_tail(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether this is a convolution, but not DFL's, which averages what a Softmax has weighted."""
    if node.op_type != "Conv":
        return False
    source = graph.producer.get(node.input[0])
    while source is not None and source.op_type in PASS_THROUGH_OPS:
        source = graph.producer.get(source.input[0])
    return source is None or source.op_type != "Softmax"
