"""ONNX -> OpenVINO IR and, where the device exports it, its compiled blob."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Final, Self

import numpy as np
import onnx
import openvino as ov
from onnx import numpy_helper

from quantizer.compile.builder import Built, Candidate
from quantizer.compile.openvino_operations import PROFILING, executed_precisions, profiled
from quantizer.compile.operations import Operation
from quantizer.errors import BuildFailed
from quantizer.qdq.format import PLAIN, QdqFormat
from service.engines.cpu import read_cpu
from service.engines.openvino_engine import CPU, Target, blob_key, compile_options, last_line
from service.manifest import FloatType, Variant

NEXT: Final = "--runtime onnxruntime may build it"


class OpenVinoBuilder:
    """Compiles for this processor's instruction sets, or for the device of a candidate."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._core = ov.Core()  # HETERO exports a network only while its core exists

    def __reduce__(self) -> tuple[Callable[[int], Self], tuple[int]]:
        return type(self), (self._threads,)  # pickled for another process

    @property
    def qdq_format(self) -> QdqFormat:
        """OpenVINO reads any Q/DQ graph; weights lose a bit where sums of two products saturate."""
        return QdqFormat(weight_bits=7) if read_cpu().int8_saturates else PLAIN

    @property
    def low_float(self) -> FloatType | None:
        """bfloat16 or float16, where the processor multiplies in that type."""
        types = self._core.get_property(CPU, "OPTIMIZATION_CAPABILITIES")
        return "bf16" if "BF16" in types else "f16" if "FP16" in types else None

    def executed(self, model: onnx.ModelProto) -> Mapping[str, str]:
        """Compiles in memory; raises BuildFailed."""
        try:
            network = self._core.read_model(_unsigned(model).SerializeToString())
            options = compile_options(self._threads, self.low_float or "f32")
            return executed_precisions(self._core.compile_model(network, CPU, options))
        except RuntimeError as exc:
            raise BuildFailed(
                f"OpenVINO cannot compile the graph: {last_line(exc)}; {NEXT}"
            ) from exc

    def operations(self, variant: Variant, folder: Path) -> tuple[Operation, ...]:
        """Load the blob, or compile the model where there is none, and time each operation."""
        options = compile_options(self._threads, variant.float_type) | PROFILING
        try:
            if variant.blob is None:
                compiled = self._core.compile_model(folder / variant.model, CPU, options)
            else:
                blob = (folder / variant.blob).read_bytes()
                compiled = self._core.import_model(blob, CPU, options)
            return profiled(compiled)
        except RuntimeError as exc:
            raise BuildFailed(f"OpenVINO cannot profile the engine: {last_line(exc)}") from exc

    def build(self, candidate: Candidate, folder: Path) -> Built:
        """Write model.xml and model.blob, the serving graph, and raw.xml, the whole graph.

        A device that exports nothing gets no blob. Raises BuildFailed.
        """
        target = Target(candidate.device or CPU)
        home = folder / candidate.name
        home.mkdir(parents=True)
        xml, raw, blob = home / "model.xml", home / "raw.xml", home / "model.blob"
        served = candidate.served()
        try:
            for graph, file in ((served.model, xml), (candidate.graph, raw)):
                network = self._core.read_model(_unsigned(graph).SerializeToString())
                ov.save_model(network, file, compress_to_fp16=False)
            # Compiled from the file, as the server does where it cannot load the blob.
            options = compile_options(self._threads, candidate.float_type, target=target)
            compiled = self._core.compile_model(xml, target.device, options)
        except RuntimeError as exc:
            graph_name, reason = f"the {candidate.variant} graph", last_line(exc)
            if candidate.device is not None:
                raise BuildFailed(f"{target.device} cannot compile {graph_name}: {reason}") from exc
            raise BuildFailed(f"OpenVINO cannot compile {graph_name}: {reason}; {NEXT}") from exc
        described = candidate.described("openvino", xml.name, raw.name)
        if exported := _exported(compiled):
            blob.write_bytes(exported)
            key = blob_key(target.device)
            described = candidate.described("openvino", xml.name, raw.name, blob.name, key)
        return candidate.built(described, served, _executed(compiled, target), folder)


def _exported(compiled: ov.CompiledModel) -> bytes:
    """The compiled network; empty where the device cannot export it, as AUTO."""
    try:
        return bytes(compiled.export_model().getvalue())
    except RuntimeError:
        return b""


def _executed(compiled: ov.CompiledModel, target: Target) -> Mapping[str, str]:
    """As `Built` has it; empty where a device other than the processor does not tell."""
    try:
        return executed_precisions(compiled)
    except (RuntimeError, KeyError):
        if target.device == CPU:
            raise
        return {}


def _unsigned(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with int8 activations written as uint8 with a zero point of 128.

    OpenVINO 2026.4 makes this change itself, but loses the zero point at a Concat: YOLOv5n then
    detects no box.
    """
    copy = deepcopy(model)
    zeros = {node.input[2] for node in copy.graph.node if node.op_type == "QuantizeLinear"}
    for tensor in copy.graph.initializer:
        if tensor.name in zeros and tensor.data_type == onnx.TensorProto.INT8:
            shifted = (numpy_helper.to_array(tensor).astype(np.int16) + 128).astype(np.uint8)
            tensor.CopyFrom(numpy_helper.from_array(shifted, tensor.name))
    return copy
