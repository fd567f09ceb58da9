"""The layers that a TensorRT engine executes, as its compiler or its inspector lists them."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Final

COVERED: Final = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
# How TensorRT 8 to 11 write a tensor's type, in the order in which to search: "INT8 NC/32HW32",
# "Channel major FP16 format where channel % 8 == 0" and "Half" all occur. With bytes.
TYPES: Final = (
    (re.compile(r"int8", re.I), "i8", 1),
    (re.compile(r"fp8", re.I), "f8", 1),
    (re.compile(r"bf16|bfloat16", re.I), "bf16", 2),
    (re.compile(r"half|fp16|float16", re.I), "f16", 2),
    (re.compile(r"float|fp32", re.I), "f32", 4),
)
CONVOLVES: Final = re.compile(r"conv|cask|gemm|correlation|fusion|function", re.I)
# A line of the list that the builder of TensorRT for RTX logs, and a tensor in it.
LISTED: Final = re.compile(
    r"Name: (?P<Name>.*?), LayerType: (?P<LayerType>.*?), Inputs: (?P<Inputs>.*?), "
    r"(?:Constants: .*?, )?Outputs: (?P<Outputs>.*?), TacticName: .*?Metadata: ?(?P<Metadata>.*)"
)
TENSOR: Final = re.compile(r"\{ Name: .*?, Dimensions: \[([\d,]*)\].*?, Datatype: (\w+)")


@dataclass(frozen=True, slots=True)
class ExecutedLayer:
    """A kernel, the type of its first input, the ONNX nodes that were fused into it."""

    name: str
    kind: str
    precision: str
    covers: tuple[str, ...]
    moved: int = 0  # bytes that it reads and writes, without its weights


def read_layers(text: str) -> tuple[ExecutedLayer, ...]:
    """From the JSON of an engine that was built with detailed profiling verbosity."""
    described = json.loads(text).get("Layers", [])
    return tuple(_read(layer) for layer in described if isinstance(layer, dict))


def read_listing(text: str) -> tuple[ExecutedLayer, ...]:
    """From the list that the builder logs; without the layers that only order others."""
    layers = tuple(map(_read, _listed(text)))
    return tuple(layer for layer in layers if layer.moved)


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


def precisions(computed: Mapping[str, Mapping[str, ExecutedLayer]]) -> dict[str, str]:
    """The precision of each convolution; by target where they differ: "sm75 f16, sm89 i8"."""
    names = dict.fromkeys(name for layers in computed.values() for name in layers)
    found = {
        name: {t: layers[name].precision for t, layers in computed.items() if name in layers}
        for name in names
    }
    return {
        name: next(iter(by_target.values()))
        if len(set(by_target.values())) == 1
        else ", ".join(f"{target} {precision}" for target, precision in by_target.items())
        for name, by_target in found.items()
    }


def _listed(text: str) -> Iterator[dict[str, Any]]:
    """Each line of the list, as the inspector would describe it."""
    for found in filter(None, map(LISTED.search, text.splitlines())):
        described: dict[str, Any] = dict(found.groupdict())
        for side in ("Inputs", "Outputs"):
            described[side] = [
                {"Dimensions": [int(size) for size in sizes.split(",") if size], "Datatype": kind}
                for sizes, kind in TENSOR.findall(described[side])
            ]
        yield described


def _read(layer: dict[str, Any]) -> ExecutedLayer:
    name = str(layer.get("Name", ""))
    covers = COVERED.findall(str(layer.get("Metadata", "")))
    read, written = (
        [(each.get("Dimensions", []), *_type(each)) for each in layer.get(side, [])]
        for side in ("Inputs", "Outputs")
    )
    return ExecutedLayer(
        name=name,
        kind=str(layer.get("LayerType", "")),
        precision=read[0][1] if read else "unknown",
        # Without metadata, as before TensorRT 10, the name lists the fused nodes.
        covers=tuple(covers) or tuple(part.strip() for part in name.split(" + ")),
        moved=sum(prod(sizes) * width for sizes, _, width in (*read, *written)),
    )


def _type(tensor: dict[str, Any]) -> tuple[str, int]:
    """The type's name and its bytes."""
    described = str(tensor.get("Datatype") or tensor.get("Format/Datatype") or "")
    known = ((name, width) for pattern, name, width in TYPES if pattern.search(described))
    return next(known, ("unknown", 0))
