"""The contract of a builder, and the one place that chooses an implementation."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import onnx

from quantizer.compile.executed_layers import ExecutedLayer
from quantizer.qdq.format import QdqFormat
from service.manifest import FloatType, Precision, Variant

INT8_NAMES: Final = frozenset({"u8", "i8"})  # what runtimes call it


@dataclass(frozen=True, slots=True)
class Candidate:
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
    layers: tuple[ExecutedLayer, ...] = ()  # of the engine, where the runtime lists them


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
    def dialect(self) -> QdqFormat:
        """How the runtime wants a Q/DQ graph to be written."""

    @property
    def low_float(self) -> FloatType | None:
        """The float type below f32 that this processor computes in, if it has one."""

    def profile(self, model: onnx.ModelProto) -> Profile | None:
        """What the runtime makes of each convolution; None where it does not tell.

        Float ones run in the lower float type, if there is one. Raises BuildFailed.
        """

    def build(self, contender: Candidate, folder: Path) -> Built:
        """Write the engine under folder/<the contender's name>/; raises BuildFailed."""
