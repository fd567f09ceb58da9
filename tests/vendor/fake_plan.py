"""A substitute for a compiled engine: the ONNX graph, and the layers that it would consist of."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper

MAGIC: Final = b"fake TensorRT plan\n"
NO_LAYERS: Final = ("Constant", "DequantizeLinear", "Identity", "QuantizeLinear")
# The names of types and layers in the engine inspector's JSON.
TYPES: Final = {
    TensorProto.FLOAT: "Float",
    TensorProto.FLOAT16: "Half",
    TensorProto.INT64: "Int64",
    TensorProto.BOOL: "Bool",
}
KINDS: Final = {"Conv": "CaskConvolution", "Concat": "NoOp", "MaxPool": "CaskPooling"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of the engine."""

    name: str
    is_input: bool
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Plan:
    """`version` is that of the TensorRT that built it."""

    version: str
    verbosity: str
    model: onnx.ModelProto

    def pack(self) -> bytes:
        """As a file."""
        head = json.dumps({"version": self.version, "verbosity": self.verbosity}).encode()
        return MAGIC + head + b"\n" + self.model.SerializeToString()

    def tensors(self) -> dict[str, Tensor]:
        """Inputs, then outputs, by name."""
        graph = self.model.graph
        constants = {each.name for each in graph.initializer}
        inputs = [each for each in graph.input if each.name not in constants]
        both = [(each, True) for each in inputs] + [(each, False) for each in graph.output]
        return {value.name: _tensor(value, is_input) for value, is_input in both}

    def layer_names(self) -> list[str]:
        return [each["Name"] for each in _layers(self.model)]

    def information(self) -> str:
        """The inspector's JSON, as detailed as the engine was built."""
        detailed = self.verbosity == "DETAILED"
        return json.dumps({"Layers": list(_layers(self.model)) if detailed else self.layer_names()})


def read_plan(content: bytes) -> Plan | None:
    """None for bytes that no build wrote."""
    head, line, body = content.removeprefix(MAGIC).partition(b"\n")
    if not content.startswith(MAGIC) or not line:
        return None
    return Plan(**json.loads(head), model=onnx.load_from_string(body))


def _tensor(value: onnx.ValueInfoProto, is_input: bool) -> Tensor:
    kind = value.type.tensor_type
    shape = tuple(dim.dim_value for dim in kind.shape.dim)
    return Tensor(value.name, is_input, helper.tensor_dtype_to_np_dtype(kind.elem_type), shape)


def _layers(model: onnx.ModelProto) -> Iterator[dict[str, Any]]:
    """As the engine inspector describes them in detail."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    types = {each.name: each.type.tensor_type.elem_type for each in values}
    constants = {each.name for each in graph.initializer}
    dequantized = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    for node in graph.node:
        if node.op_type in NO_LAYERS:
            continue
        reads = [name for name in node.input if name and name not in constants][:1]
        int8 = node.op_type == "Conv" and dequantized.issuperset(node.input[:2])
        yield {
            "Name": node.name or node.output[0],
            "LayerType": KINDS.get(node.op_type, node.op_type),
            "Inputs": [
                {"Name": name, "Format/Datatype": "Int8" if int8 else TYPES[types[name]]}
                for name in reads
            ],
            "Metadata": f"[ONNX Layer: {node.name or node.output[0]}]",
        }
