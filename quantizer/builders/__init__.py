"""The contract of a builder, and the one place that chooses an implementation."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import onnx

from service.manifest import FloatType, Precision, Runtime, Variant

INT8_NAMES: Final = frozenset({"u8", "i8"})  # what runtimes call it


@dataclass(frozen=True, slots=True)
class Built:
    """One compiled variant, and the precision in which the runtime executes each convolution."""

    variant: Variant
    executed: Mapping[str, str]  # layer name -> the runtime's word for it: f32, u8, i8, ...
    bytes: int


@dataclass(frozen=True, slots=True)
class Profile:
    """By layer name: the precision that each convolution runs in, and its milliseconds."""

    executed: Mapping[str, str]
    ms: Mapping[str, float]


class Builder(Protocol):
    """Turns a graph into the files of one engine."""

    @property
    def low_float(self) -> FloatType | None:
        """The float type below f32 that this processor computes in, if it has one."""

    def profile(self, model: onnx.ModelProto) -> Profile | None:
        """What the runtime makes of each convolution; None where it does not tell.

        Raises BuildFailed.
        """

    def build(
        self,
        model: onnx.ModelProto,
        folder: Path,
        name: str,
        precision: Precision,
        float_type: FloatType = "f32",
    ) -> Built:
        """Write the engine under folder/<name>/; raises BuildFailed."""


def load_builder(runtime: Runtime, threads: int) -> Builder:
    """The builder of a runtime that is installed."""
    match runtime:
        case "openvino":
            from quantizer.builders.openvino_builder import OpenVinoBuilder

            return OpenVinoBuilder(threads)
        case "onnxruntime":
            from quantizer.builders.onnxruntime_builder import OnnxRuntimeBuilder

            return OnnxRuntimeBuilder(threads)
