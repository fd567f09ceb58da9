"""The contract of a builder, and the one place that chooses an implementation."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import onnx

from quantizer.dialect import Dialect
from quantizer.engine_layers import EngineLayer
from service.manifest import FloatType, Precision, Runtime, Variant
from service.readiness import Progress, ReportProgress

INT8_NAMES: Final = frozenset({"u8", "i8"})  # what runtimes call it


@dataclass(frozen=True, slots=True)
class Contender:
    """An engine to compile. Two may stand for one variant: int8 with its float layers in either
    type."""

    variant: Precision
    graph: onnx.ModelProto
    float_type: FloatType = "f32"
    divisor: float = 1.0  # of the bytes of an image, as `load_engine` will be given it

    @property
    def name(self) -> str:
        """Of its folder: the variant's name; int8 with a lower float type says so."""
        mixed = self.variant == "int8" and self.float_type != "f32"
        return f"{self.variant}-{self.float_type}" if mixed else self.variant


@dataclass(frozen=True, slots=True)
class Built:
    """One compiled variant, and the precision in which the runtime executes each convolution."""

    variant: Variant
    executed: Mapping[str, str]  # layer name -> the runtime's word for it: f32, u8, i8, ...
    bytes: int
    layers: tuple[EngineLayer, ...] = ()  # of the engine, where the runtime lists them


@dataclass(frozen=True, slots=True)
class Profile:
    """By layer name: the precision that each convolution runs in, and its milliseconds.

    Where the runtime does not tell of a convolution, it is not named.
    """

    executed: Mapping[str, str]
    ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Resources:
    """What a builder may use: a GPU's memory to try kernels in, a folder for what they took."""

    workspace_mib: int | None = None  # None: all of it
    timing_caches: Path | None = None


NO_LIMITS: Final = Resources()


class Builder(Protocol):
    """Turns a graph into the files of one engine."""

    @property
    def dialect(self) -> Dialect:
        """How the runtime wants a Q/DQ graph to be written."""

    @property
    def low_float(self) -> FloatType | None:
        """The float type below f32 that this processor computes in, if it has one."""

    def profile(self, model: onnx.ModelProto) -> Profile | None:
        """What the runtime makes of each convolution; None where it does not tell.

        Float ones run in the lower float type, if there is one. Raises BuildFailed.
        """

    def build(self, contender: Contender, folder: Path) -> Built:
        """Write the engine under folder/<the contender's name>/; raises BuildFailed."""


def _silence(progress: Progress) -> None:
    """Report nothing."""


def load_builder(
    runtime: Runtime,
    threads: int,
    resources: Resources = NO_LIMITS,
    progress: ReportProgress = _silence,
) -> Builder:
    """The builder of a runtime that is installed; raises DeviceUnavailable."""
    match runtime:
        case "openvino":
            from quantizer.builders.openvino_builder import OpenVinoBuilder

            return OpenVinoBuilder(threads)
        case "onnxruntime":
            from quantizer.builders.onnxruntime_builder import OnnxRuntimeBuilder

            return OnnxRuntimeBuilder(threads)
        case "onnxruntime-cuda":
            from quantizer.builders.onnxruntime_builder import OnnxRuntimeBuilder

            return OnnxRuntimeBuilder(threads, cuda=True)
        case "tensorrt":
            from quantizer.builders.tensorrt_builder import TensorRtBuilder

            return TensorRtBuilder(resources, progress)
