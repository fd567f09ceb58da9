"""What stands for a compiled engine: the ONNX graph itself, and what would have been made of it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper

MAGIC: Final = b"fake TensorRT plan\n"
MOVED_ONLY: Final = ("Constant", "DequantizeLinear", "Identity", "QuantizeLinear")  # no layers
MULTIPLIES: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # what has kernels in int8

WORDS: Final = {
    TensorProto.FLOAT: "Float",
    TensorProto.FLOAT16: "Half",
    TensorProto.BFLOAT16: "BFloat16",
    TensorProto.INT8: "Int8",
    TensorProto.INT32: "Int32",
    TensorProto.INT64: "Int64",
    TensorProto.UINT8: "UInt8",
    TensorProto.BOOL: "Bool",
}
KINDS: Final = {"Conv": "CaskConvolution", "Concat": "NoOp", "MaxPool": "CaskPooling"}


class NotAPlan(ValueError):
    """Bytes that no build wrote, or that were cut off."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of the engine."""

    name: str
    is_input: bool
    element: int  # ONNX's number of the type
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """As numpy has it."""
        return helper.tensor_dtype_to_np_dtype(self.element)

    @property
    def bytes(self) -> int:
        """In memory."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Plan:
    """The version is that of the TensorRT that built it."""

    version: str
    verbosity: str
    model: onnx.ModelProto

    def pack(self) -> bytes:
        """As a file."""
        head = json.dumps({"version": self.version, "verbosity": self.verbosity}).encode()
        return MAGIC + head + b"\n" + self.model.SerializeToString()

    @property
    def tensors(self) -> list[Tensor]:
        """Inputs, then outputs."""
        graph = self.model.graph
        constants = {each.name for each in graph.initializer}
        inputs = [each for each in graph.input if each.name not in constants]
        return [_tensor(each, True) for each in inputs] + [
            _tensor(each, False) for each in graph.output
        ]

    def layers(self) -> list[dict[str, Any]]:
        """As the engine inspector tells of them in detail."""
        return list(_layers(onnx.shape_inference.infer_shapes(self.model).graph))

    def information(self) -> str:
        """What the inspector says of the engine, as much as it was built to tell."""
        layers: list[Any] = self.layers() if self.verbosity != "NONE" else []
        if self.verbosity == "LAYER_NAMES_ONLY":
            layers = [each["Name"] for each in layers]
        return json.dumps({"Layers": layers, "Bindings": [each.name for each in self.tensors]})


def read_plan(content: bytes) -> Plan:
    """Raises NotAPlan."""
    head, line, body = content.removeprefix(MAGIC).partition(b"\n")
    try:
        if not content.startswith(MAGIC) or not line:
            raise ValueError
        told = json.loads(head)
        return Plan(told["version"], told["verbosity"], onnx.load_from_string(body))
    except Exception as exc:  # protobuf has several of its own
        raise NotAPlan("magicTag does not match") from exc


def _tensor(value: onnx.ValueInfoProto, is_input: bool) -> Tensor:
    kind = value.type.tensor_type
    shape = tuple(dim.dim_value for dim in kind.shape.dim)
    return Tensor(value.name, is_input, kind.elem_type, shape)


def _layers(graph: onnx.GraphProto) -> Iterator[dict[str, Any]]:
    tensors = {
        each.name: _tensor(each, False) for each in (*graph.input, *graph.value_info, *graph.output)
    }
    constants = {each.name for each in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}

    def dequantized(name: str) -> bool:
        return name in made_by and made_by[name].op_type == "DequantizeLinear"

    def told(name: str, word: str | None) -> dict[str, Any]:
        found = tensors.get(name)
        return {
            "Name": name,
            "Dimensions": list(found.shape) if found else [],
            "Format/Datatype": word or (WORDS[found.element] if found else "Float"),
        }

    for node in graph.node:
        if node.op_type in MOVED_ONLY:
            continue
        reads = [name for name in node.input if name and name not in constants]
        int8 = node.op_type in MULTIPLIES and all(map(dequantized, node.input[:2]))
        name = node.name or node.output[0]
        yield {
            "Name": name,
            "LayerType": KINDS.get(node.op_type, node.op_type),
            "Inputs": [
                told(
                    made_by[each].input[0] if dequantized(each) else each, "Int8" if int8 else None
                )
                for each in reads[:1]
            ],
            "Outputs": [told(each, None) for each in node.output],
            "TacticName": f"fake_{node.op_type.lower()}",
            "Metadata": f"[ONNX Layer: {name}]",
        }
