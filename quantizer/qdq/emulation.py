"""A graph in float16, made to run on a processor that has no float16."""

from collections.abc import Iterator

import onnx
from onnx import TensorProto, helper, numpy_helper


def in_float16(typed: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 graph that rounds each value that the typed graph holds in float16.

    On a processor without float16, ONNX Runtime computes a float16 graph in float32 from end to
    end. It cannot leave out two Casts after each node.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(typed)
    graph = copy.graph
    halves = {
        value.name
        for value in graph.value_info
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16
    }
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(tensor).astype("float32")
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    nodes = [part for node in graph.node for part in _rounded(node, halves)]
    for field in ("node", "value_info"):
        graph.ClearField(field)
    graph.node.extend(nodes)
    return copy


def _rounded(original: onnx.NodeProto, halves: set[str]) -> Iterator[onnx.NodeProto]:
    node = onnx.NodeProto()
    node.CopyFrom(original)
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT16:
            attribute.i = TensorProto.FLOAT
    rounded = [name for name in node.output if name in halves]
    for index, name in enumerate(node.output):
        if name in halves:
            node.output[index] = f"{name}/exact"
    yield node
    for name in rounded:
        half = f"{name}/half"
        yield helper.make_node("Cast", [f"{name}/exact"], [half], to=TensorProto.FLOAT16)
        yield helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT)
