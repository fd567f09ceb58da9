"""The graph with the queries that the rules need, and the findings that they report."""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Final, Literal, Self

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, shape_inference

from quantizer.model.graph import Graph, attribute

QUANTIZE: Final = "QuantizeLinear"
DEQUANTIZE: Final = "DequantizeLinear"
WEIGHTED: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
STANDARD: Final = frozenset({"", "ai.onnx"})  # the names of ONNX's own domain

Consequence = Literal["build failure", "no int8 kernel", "reformat", "accuracy"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that a node breaks, and the consequence in TensorRT."""

    rule: str
    node: str
    consequence: Consequence
    message: str


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A graph with the element types of its tensors, and queries about its Q and DQ nodes."""

    graph: Graph
    types: Mapping[str, int]
    opset: int

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Self:
        described = shape_inference.infer_shapes(_with_initializers(model))
        graph = described.graph
        values = [*graph.value_info, *graph.input, *graph.output]
        types = {value.name: value.type.tensor_type.elem_type for value in values}
        types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        known = {name: kind for name, kind in types.items() if kind != TensorProto.UNDEFINED}
        opset = next((item.version for item in model.opset_import if item.domain in STANDARD), 1)
        return cls(Graph.of(described), known, opset)

    def of_type(self, *op_types: str) -> Iterator[onnx.NodeProto]:
        return (node for node in self.graph.nodes if node.op_type in op_types)

    def producer(self, tensor: str, *op_types: str) -> onnx.NodeProto | None:
        """The node that computes a tensor, if it is of one of these types."""
        node = self.graph.producer.get(tensor)
        return node if node is not None and node.op_type in op_types else None

    def readers(self, tensor: str) -> tuple[onnx.NodeProto, ...]:
        return self.graph.consumers.get(tensor, ())

    def quantizers(self, tensor: str) -> list[onnx.NodeProto]:
        """The Q nodes that read a tensor."""
        return [node for node in self.readers(tensor) if node.op_type == QUANTIZE]

    def dequantizer(self, tensor: str) -> onnx.NodeProto | None:
        """The DQ that computes an activation."""
        node = self.producer(tensor, DEQUANTIZE)
        return None if node is None or self.works_on_a_constant(node) else node

    def weight(self, layer: onnx.NodeProto) -> onnx.NodeProto | None:
        """The DQ of a layer's constant weight."""
        node = self.producer(layer.input[1], DEQUANTIZE)
        return node if node is not None and self.works_on_a_constant(node) else None

    def weights_in_int8(self) -> Iterator[tuple[onnx.NodeProto, int, tuple[int, ...], int]]:
        """The DQ of each layer's weight, its number of scales, the weight's shape, and in it the
        axis of the output channels; without those whose scales are computed."""
        for layer in self.of_type(*WEIGHTED):
            weight = self.weight(layer)
            scale = None if weight is None else self.scale(weight)
            if weight is not None and scale is not None:
                shape = self.shape(self.before(weight)) or ()
                yield weight, scale.size, shape, _channel_axis(layer, len(shape))

    def runs_in_int8(self, layer: onnx.NodeProto) -> bool:
        """Whether the input and the weight of a weighted layer are quantized."""
        return self.dequantizer(layer.input[0]) is not None and self.weight(layer) is not None

    def before(self, node: onnx.NodeProto) -> str:
        """The tensor that is quantized: the input of a Q, or of the Q in front of a DQ."""
        source: str = (self.producer(node.input[0], QUANTIZE) or node).input[0]
        return source

    def works_on_a_constant(self, node: onnx.NodeProto) -> bool:
        return self.graph.is_constant(self.before(node))

    def parametrized(self) -> Iterator[onnx.NodeProto]:
        """Every Q and DQ, except a DQ that shares scale and zero point with its Q."""
        for node in self.of_type(QUANTIZE, DEQUANTIZE):
            producer = self.producer(node.input[0], QUANTIZE)
            if producer is None or producer.input[1:] != node.input[1:]:
                yield node

    def scale(self, node: onnx.NodeProto) -> NDArray[np.float64] | None:
        """The scales of a Q or DQ, f64[N]; None where they are computed."""
        name = node.input[1]
        if not self.graph.is_constant(name):
            return None
        return self.graph.constant(name).astype(np.float64).ravel()

    def same_scale(self, *nodes: onnx.NodeProto) -> bool:
        """Whether the scales of these nodes are equal; computed scales are ignored."""
        scales = [scale for node in nodes if (scale := self.scale(node)) is not None]
        return all(np.array_equal(scale, scales[0]) for scale in scales)

    def shape(self, tensor: str) -> tuple[int, ...] | None:
        constant = self.graph.constants.get(tensor)
        return self.graph.shapes.get(tensor) if constant is None else tuple(constant.dims)


Violations = Iterator[tuple[onnx.NodeProto, str]]  # nodes that break a rule, and how
Rule = Callable[[Network], Violations]


def _channel_axis(layer: onnx.NodeProto, rank: int) -> int:
    """The axis of the output channels in the weight of a layer."""
    match layer.op_type:
        case "ConvTranspose":
            return 1
        case "Gemm":
            return 0 if attribute(layer, "transB", 0) else 1
        case "MatMul":
            return rank - 1
        case _:
            return 0


def _with_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which Constant nodes are initializers."""
    copy = deepcopy(model)
    for node in model.graph.node:
        for value in node.attribute:
            if node.op_type == "Constant" and value.name == "value":
                copy.graph.initializer.append(value.t)
                copy.graph.initializer[-1].name = node.output[0]
    del copy.graph.node[:]
    copy.graph.node.extend(node for node in model.graph.node if node.op_type != "Constant")
    return copy
