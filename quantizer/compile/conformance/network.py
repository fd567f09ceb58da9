"""What rules look at and what they say."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Final, Literal, Self

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, shape_inference

from quantizer.model.graph import Graph, attribute, layer_name

QUANTIZE: Final = "QuantizeLinear"
DEQUANTIZE: Final = "DequantizeLinear"
WEIGHTED: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
STANDARD: Final = frozenset({"", "ai.onnx"})  # the names of ONNX's own domain

Consequence = Literal["build failure", "no int8 kernel", "reformat", "accuracy"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A node at which a rule is broken, and what would happen."""

    rule: str
    node: str
    consequence: Consequence
    message: str


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A graph with its tensors' element types, seen as pairs of Q and DQ and what they surround."""

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

    def of_kind(self, *kinds: str) -> Iterator[onnx.NodeProto]:
        return (node for node in self.graph.nodes if node.op_type in kinds)

    def maker(self, tensor: str, *kinds: str) -> onnx.NodeProto | None:
        """The node of one of these kinds that computes a tensor."""
        node = self.graph.producer.get(tensor)
        return node if node is not None and node.op_type in kinds else None

    def readers(self, tensor: str) -> tuple[onnx.NodeProto, ...]:
        return self.graph.consumers.get(tensor, ())

    def quantizers(self, tensor: str) -> list[onnx.NodeProto]:
        """The Qs of a tensor."""
        return [node for node in self.readers(tensor) if node.op_type == QUANTIZE]

    def dequantizer(self, tensor: str) -> onnx.NodeProto | None:
        """The DQ that an activation comes out of."""
        node = self.maker(tensor, DEQUANTIZE)
        return None if node is None or self.works_on_a_constant(node) else node

    def weight(self, layer: onnx.NodeProto) -> onnx.NodeProto | None:
        """The DQ that the constant weight of a layer comes out of."""
        node = self.maker(layer.input[1], DEQUANTIZE)
        return node if node is not None and self.works_on_a_constant(node) else None

    def runs_in_int8(self, layer: onnx.NodeProto) -> bool:
        """Whether the input and the weight of a weighted layer are quantized."""
        return self.dequantizer(layer.input[0]) is not None and self.weight(layer) is not None

    def before(self, node: onnx.NodeProto) -> str:
        """What is quantized: of a DQ, the tensor in front of its Q, if it has one."""
        source: str = (self.maker(node.input[0], QUANTIZE) or node).input[0]
        return source

    def works_on_a_constant(self, node: onnx.NodeProto) -> bool:
        return self.graph.is_constant(self.before(node))

    def parametrized(self) -> Iterator[onnx.NodeProto]:
        """Every Q and DQ, but for a DQ that has scale and zero point from its Q."""
        for node in self.of_kind(QUANTIZE, DEQUANTIZE):
            maker = self.maker(node.input[0], QUANTIZE)
            if maker is None or maker.input[1:] != node.input[1:]:
                yield node

    def scale(self, node: onnx.NodeProto) -> NDArray[np.float64] | None:
        """The scales of a Q or DQ, flat; None where they are computed."""
        name = node.input[1]
        if not self.graph.is_constant(name):
            return None
        return self.graph.constant(name).astype(np.float64).ravel()

    def same_scale(self, *nodes: onnx.NodeProto) -> bool:
        """Whether the known ones of these scales are equal."""
        scales = [scale for node in nodes if (scale := self.scale(node)) is not None]
        return all(np.array_equal(scale, scales[0]) for scale in scales)

    def shape(self, tensor: str) -> tuple[int, ...] | None:
        constant = self.graph.constants.get(tensor)
        return self.graph.shapes.get(tensor) if constant is None else tuple(constant.dims)


Complaint = tuple[onnx.NodeProto, str]
Rule = Callable[[Network], list[Finding]]


def rule(consequence: Consequence) -> Callable[[Callable[[Network], Iterator[Complaint]]], Rule]:
    """Makes a rule, named like the function, of one that yields nodes and what is wrong there."""

    def named(complaints: Callable[[Network], Iterator[Complaint]]) -> Rule:
        @wraps(complaints)
        def findings(network: Network) -> list[Finding]:
            return [
                Finding(complaints.__name__, layer_name(node), consequence, message)
                for node, message in complaints(network)
            ]

        return findings

    return named


def channel_axis(layer: onnx.NodeProto, rank: int) -> int:
    """The axis of a weight that its output channels are on."""
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
    """A copy in which constants that come out of nodes are initializers as well."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in model.graph.node:
        for value in node.attribute:
            if node.op_type == "Constant" and value.name == "value":
                tensor = copy.graph.initializer.add()
                tensor.CopyFrom(value.t)
                tensor.name = node.output[0]
    kept = [node for node in model.graph.node if node.op_type != "Constant"]
    copy.graph.ClearField("node")
    copy.graph.node.extend(kept)
    return copy
