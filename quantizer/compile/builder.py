"""The interface of a runtime's builder, with its inputs and its results."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import onnx

from quantizer.compile.executed_layers import ExecutedLayer
from quantizer.compile.operations import Operation
from quantizer.model.map_layout import Maps
from quantizer.model.projected import Ended, ended_before
from quantizer.model.serving_graph import reading_bytes
from quantizer.model.top_anchors import ended_at_top
from quantizer.qdq.float16 import to_float16
from quantizer.qdq.format import QdqFormat
from service.manifest import FloatType, Precision, Runtime, Variant
from service.vision.preprocess import PREPROCESS, Preprocess
from service.vision.projections import FILE, write_projections

INT8_NAMES: Final = frozenset({"u8", "i8"})  # the runtimes' names of 8-bit integers


@dataclass(frozen=True, slots=True)
class Candidate:
    """An engine to compile. int8 may have two: its float layers in float32 or in a lower type."""

    variant: Precision
    graph: onnx.ModelProto
    float_type: FloatType = "f32"
    preprocess: Preprocess = PREPROCESS["yolo"]
    maps: Maps | None = None  # at which the graph may end
    device: str | None = None  # of OpenVINO's, beside the processor

    @property
    def name(self) -> str:
        """The name of its folder: of the variant, for int8 with a lower float type that as well."""
        mixed = self.variant == "int8" and self.float_type != "f32"
        return f"{self.served_as}-{self.float_type}" if mixed else self.served_as

    @property
    def served_as(self) -> str:
        """The variant's name in the manifest: int8, or int8-gpu on a device of its own."""
        if self.device is None:
            return self.variant
        return f"{self.variant}-{re.sub('[^a-z0-9.]+', '-', self.device.lower()).strip('-')}"

    def described(
        self,
        runtime: Runtime,
        model: str,
        raw: str | None = None,
        blob: str | None = None,
        blob_key: str | None = None,
    ) -> Variant:
        """The manifest's entry; the files lie in a folder of the candidate's name."""
        return Variant(
            runtime=runtime,
            precision=self.variant,
            float_type=self.float_type,
            device=self.device,
            model=f"{self.name}/{model}",
            raw=raw and f"{self.name}/{raw}",
            blob=blob and f"{self.name}/{blob}",
            blob_key=blob_key,
        )

    def served(self, bytes_are_steps: bool = False) -> Ended:
        """The graph from bytes to what the server reads of the maps, or to the whole output; see
        `quantizer.model.serving_graph` and `quantizer.model.projected`."""
        ended = Ended(self.graph) if self.maps is None else ended_before(self.graph, self.maps)
        return ended._replace(model=reading_bytes(ended.model, self.preprocess, bytes_are_steps))

    def built(
        self, variant: Variant, served: Ended, executed: Mapping[str, str], folder: Path
    ) -> "Built":
        """Write what the graph leaves to the server beside the engine's files in `folder`."""
        home = folder / self.name
        if served.projections:
            write_projections(home / FILE, served.projections)
            variant = variant.model_copy(update={"projections": f"{self.name}/{FILE}"})
        size = sum(path.stat().st_size for path in home.iterdir())
        return Built(variant, executed, size)

    def typed_graph(self) -> onnx.ModelProto:
        """The graph with the float type written into it; raises BuildFailed."""
        return self._typed(self.graph)

    def gpu_graph(self) -> onnx.ModelProto:
        """The typed graph from bytes to the best anchors, or to the whole output without maps.

        Raises BuildFailed.
        """
        ended = self.graph if self.maps is None else ended_at_top(self.graph, self.maps)
        return reading_bytes(self._typed(ended), self.preprocess)

    def _typed(self, graph: onnx.ModelProto) -> onnx.ModelProto:
        return to_float16(graph) if self.float_type == "f16" else graph


@dataclass(frozen=True, slots=True)
class Built:
    """One compiled variant, and the precision in which the runtime executes each convolution."""

    variant: Variant
    executed: Mapping[str, str]  # layer name -> the runtime's name: f32, u8, i8, ...
    bytes: int
    layers: tuple[ExecutedLayer, ...] = ()  # of the engine, where the runtime lists them


@dataclass(frozen=True, slots=True)
class Resources:
    """What a builder may use: GPU memory in which to try kernels, a folder for their timings."""

    workspace_mib: int | None = None  # None: all of it
    timing_caches: Path | None = None


NO_LIMITS: Final = Resources()


class Builder(Protocol):
    """Turns a graph into the files of one engine."""

    @property
    def qdq_format(self) -> QdqFormat:
        """How a Q/DQ graph for this runtime is written."""

    @property
    def low_float(self) -> FloatType | None:
        """The float type below f32 in which this processor computes, if it has one."""

    def executed(self, model: onnx.ModelProto) -> Mapping[str, str]:
        """By layer name: the precision in which each convolution would run, as in `Built`.

        A convolution on which the runtime reports nothing is absent. Float layers run in the lower
        float type, if there is one. Raises BuildFailed.
        """

    def build(self, candidate: Candidate, folder: Path) -> Built:
        """Write the engine into folder/<the candidate's name>/; raises BuildFailed."""

    def operations(self, variant: Variant, folder: Path) -> tuple[Operation, ...]:
        """What an engine in `folder` executes, with times; none where the runtime has no times.

        Raises BuildFailed.
        """
