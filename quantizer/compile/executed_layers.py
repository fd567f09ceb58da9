"""The layers that a TensorRT engine executes, from the JSON of its engine inspector."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

COVERED: Final = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
# How TensorRT 8 to 11 write a tensor's type, in the order in which to search: "INT8 NC/32HW32",
# "Channel major FP16 format where channel % 8 == 0" and "Half" all occur.
TYPES: Final = (
    (re.compile(r"int8", re.I), "i8"),
    (re.compile(r"bf16|bfloat16", re.I), "bf16"),
    (re.compile(r"half|fp16|float16", re.I), "f16"),
    (re.compile(r"float|fp32", re.I), "f32"),
)
CONVOLVES: Final = re.compile(r"conv|cask|gemm|correlation", re.I)


@dataclass(frozen=True, slots=True)
class ExecutedLayer:
    """A kernel, the type of its first input, and the ONNX nodes that were fused into it."""

    name: str
    kind: str
    precision: str
    covers: tuple[str, ...]


def read_layers(text: str) -> tuple[ExecutedLayer, ...]:
    """The layers of an engine that was built with detailed profiling verbosity."""
    described = json.loads(text).get("Layers", [])
    return tuple(_read(layer) for layer in described if isinstance(layer, dict))


def kernels(
    layers: Iterable[ExecutedLayer], convolutions: Iterable[str]
) -> dict[str, ExecutedLayer]:
    """By convolution: the layer that computes it, and not a reformat that also names it."""
    names = set(convolutions)
    kernel_of: dict[str, ExecutedLayer] = {}
    for layer in layers:
        for name in names.intersection(layer.covers):
            if name not in kernel_of or CONVOLVES.search(layer.kind):
                kernel_of[name] = layer
    return kernel_of


def _read(layer: dict[str, Any]) -> ExecutedLayer:
    name = str(layer.get("Name", ""))
    covers = COVERED.findall(str(layer.get("Metadata", "")))
    read = [str(each.get("Format/Datatype", "")) for each in layer.get("Inputs", [])]
    return ExecutedLayer(
        name=name,
        kind=str(layer.get("LayerType", "")),
        precision=_precision(read[0]) if read else "unknown",
        # Without metadata, as before TensorRT 10, the name lists the fused nodes.
        covers=tuple(covers) or tuple(part.strip() for part in name.split(" + ")),
    )


def _precision(described: str) -> str:
    return next((name for pattern, name in TYPES if pattern.search(described)), "unknown")
