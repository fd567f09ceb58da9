"""A read-only index over an ONNX graph: producers, consumers, constants and shapes."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

# Operators that only move values: their output lies within the bounds of their inputs.
PASS_THROUGH_OPS = frozenset(
    {
        "Concat",
        "DepthToSpace",
        "Flatten",
        "Gather",
        "Identity",
        "MaxPool",
        "Reshape",
        "Resize",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """The nodes of `model` in topological order, and their connections by tensor name."""

    model: onnx.ModelProto
    nodes: tuple[onnx.NodeProto, ...]
    producer: dict[str, onnx.NodeProto]
    consumers: dict[str, tuple[onnx.NodeProto, ...]]
    constants: dict[str, onnx.TensorProto]
    shapes: dict[str, tuple[int, ...]]  # of the tensors whose shape is known and static
    outputs: tuple[str, ...]
    input: str

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Self:
        graph = model.graph
        constants = {tensor.name: tensor for tensor in graph.initializer}
        producer: dict[str, onnx.NodeProto] = {}
        consumers: defaultdict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            producer.update({name: node for name in node.output if name})
            for name in dict.fromkeys(node.input):
                if name:
                    consumers[name].append(node)
        described = [*graph.value_info, *graph.input, *graph.output]
        shapes = {
            value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
            for value in described
            if all(dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim)
        }
        inputs = [value.name for value in graph.input if value.name not in constants]
        return cls(
            model,
            tuple(graph.node),
            producer,
            {name: tuple(nodes) for name, nodes in consumers.items()},
            constants,
            shapes,
            tuple(value.name for value in graph.output),
            inputs[0],
        )

    def is_constant(self, name: str) -> bool:
        return name in self.constants

    def constant(self, name: str) -> NDArray[np.generic]:
        """The value of a constant; raises KeyError for anything else."""
        return numpy_helper.to_array(self.constants[name])

    def with_outputs(self, tensors: Sequence[str]) -> onnx.ModelProto:
        """A copy of the model with these tensors as its only outputs."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        model.graph.ClearField("output")
        model.graph.output.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, self.shapes.get(name))
            for name in tensors
        )
        return model

    def activations_of(self, node: onnx.NodeProto) -> tuple[str, ...]:
        """The inputs of a node that are computed, not constant."""
        return tuple(name for name in node.input if name and name not in self.constants)


def silu_input(graph: Graph, node: onnx.NodeProto) -> str | None:
    """The input of a SiLU, a Mul of a tensor with its own Sigmoid; None for any other node."""
    if node.op_type == "Mul":
        pair: list[str] = list(node.input)
        for value, gate in (pair, pair[::-1]):
            sigmoid = graph.producer.get(gate)
            if sigmoid is not None and sigmoid.op_type == "Sigmoid" and sigmoid.input[0] == value:
                return value
    return None


def constant_weight(graph: Graph, convolution: onnx.NodeProto) -> str | None:
    """The constant that holds a convolution's weight, as floats or, dequantized, as integers."""
    name = convolution.input[1]
    producer = graph.producer.get(name)
    if producer is not None and producer.op_type == "DequantizeLinear":
        name = producer.input[0]
    return name if graph.is_constant(name) else None


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """An integer attribute of a node."""
    return next((attr.i for attr in node.attribute if attr.name == name), default)


def attributes(node: onnx.NodeProto, name: str) -> tuple[int, ...]:
    """The integers of a list attribute; none where the node lacks it."""
    return next((tuple(attr.ints) for attr in node.attribute if attr.name == name), ())


def layer_name(node: onnx.NodeProto) -> str:
    """The node's name, or its output's where the exporter named no node."""
    return node.name or node.output[0]


def drop_unread(model: onnx.ModelProto) -> None:
    """Remove the nodes and the constants of a model that none of its outputs needs."""
    needed = {value.name for value in model.graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(list(model.graph.node)):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    constants = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    for field, values in (("node", kept[::-1]), ("initializer", constants)):
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(values)
