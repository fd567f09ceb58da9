"""The contract of a builder, and the one place that chooses an implementation."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import onnx

from service.manifest import Precision, Runtime, Variant


@dataclass(frozen=True, slots=True)
class Built:
    """One compiled variant, and the precision in which the runtime executes each convolution."""

    variant: Variant
    executed: Mapping[str, str]  # layer name -> the runtime's word for it: f32, u8, i8, ...
    bytes: int


class Builder(Protocol):
    """Turns a graph into the files of one engine."""

    def build(self, model: onnx.ModelProto, folder: Path, precision: Precision) -> Built:
        """Write the engine under folder/<precision>/; raises BuildFailed."""


def load_builder(runtime: Runtime, threads: int) -> Builder:
    """The builder of a runtime that is installed."""
    match runtime:
        case "openvino":
            from quantizer.builders.openvino_builder import OpenVinoBuilder

            return OpenVinoBuilder(threads)
        case "onnxruntime":
            from quantizer.builders.onnxruntime_builder import OnnxRuntimeBuilder

            return OnnxRuntimeBuilder(threads)
