"""ONNX -> TensorRT plan: explicit quantization in a strongly typed network."""

import logging
import os
import time
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import onnx
import tensorrt as trt

from quantizer.compile.builder import Built, Candidate, Profile, Resources
from quantizer.compile.conformance import check
from quantizer.compile.executed_layers import ExecutedLayer, kernels, read_layers
from quantizer.compile.tensorrt_callbacks import BuildMonitor, LayerTimes
from quantizer.errors import BuildFailed
from quantizer.model.graph import Graph, layer_name
from quantizer.qdq.float16 import to_float16
from quantizer.qdq.format import TENSORRT, QdqFormat
from service.engines.tensorrt_engine import TensorRtEngine, TensorRtLog, plan_key
from service.manifest import FloatType
from service.progress import ReportProgress

PROFILE_ROUNDS: Final = 8
MEBIBYTE: Final = 1 << 20

log = logging.getLogger(__name__)


class TensorRtBuilder:
    """Compiles for the GPU of this machine; raises DeviceUnavailable where there is none."""

    def __init__(self, resources: Resources, progress: ReportProgress) -> None:
        self._key = plan_key()
        self._workspace_mib = resources.workspace_mib
        folder = resources.timing_caches
        self._timing_cache = None if folder is None else folder / f"{self._key}.timing"
        self._progress = progress
        self._log = TensorRtLog()
        self._builder = trt.Builder(self._log)

    @property
    def qdq_format(self) -> QdqFormat:
        """Symmetric, with Q/DQ before and after every layer that is to run in int8."""
        return TENSORRT

    @property
    def low_float(self) -> FloatType:
        """float16: every GPU that TensorRT 10 supports multiplies in it."""
        return "f16"

    def profile(self, model: onnx.ModelProto) -> Profile:
        """Build in a temporary folder and time each layer; raises BuildFailed."""
        typed = to_float16(model)
        graph, times = Graph.of(typed), LayerTimes()
        with TemporaryDirectory() as folder:
            plan = Path(folder) / "profile.plan"
            plan.write_bytes(self._plan(typed, "profile"))
            layers = self._layers(plan)
            engine = TensorRtEngine(plan, self._key, profiler=times)
            try:
                for _ in range(PROFILE_ROUNDS):
                    times.begin()
                    engine.infer_tensor(np.zeros(graph.shapes[graph.input], np.float32))
            finally:
                engine.close()
        computed = _computed(layers, graph)
        ms = {name: times.least(layer.name) for name, layer in computed.items()}
        return Profile({name: layer.precision for name, layer in computed.items()}, ms)

    def build(self, candidate: Candidate, folder: Path) -> Built:
        """Write model.onnx, the graph that TensorRT reads, and model.plan; raises BuildFailed."""
        home = folder / candidate.name
        home.mkdir(parents=True)
        source, plan = home / "model.onnx", home / "model.plan"
        graph = candidate.typed_graph()
        onnx.save(graph, source)
        plan.write_bytes(self._plan(graph, candidate.name))
        layers = self._layers(plan)
        variant = candidate.described("tensorrt", source.name, blob=plan.name, blob_key=self._key)
        computed = _computed(layers, Graph.of(graph))
        executed = {name: layer.precision for name, layer in computed.items()}
        return Built(variant, executed, plan.stat().st_size, layers)

    def _plan(self, graph: onnx.ModelProto, name: str) -> bytes:
        """The serialized engine of a graph; TensorRT computes in the types written into it."""
        _check_conformance(graph, name)
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = self._builder.create_network(flags)
        parser = trt.OnnxParser(network, self._log)
        if not parser.parse(graph.SerializeToString()):
            raise BuildFailed(f"TensorRT cannot read the {name} graph: {_parser_errors(parser)}")
        config = self._builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)  # fp32 is the reference: no 10-bit mantissas
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        config.progress_monitor = BuildMonitor(f"compile {name}", self._progress)
        if self._workspace_mib is not None:
            limit = self._workspace_mib * MEBIBYTE
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, limit)
        if self._timing_cache is not None:
            self._use_timings(config, self._timing_cache)
        started = time.perf_counter()
        plan = self._builder.build_serialized_network(network, config)
        if plan is None:
            raise BuildFailed(
                f"TensorRT cannot build the {name} engine: {self._log.reason} "
                "(where memory is short, the option workspace_mib limits what it may try)"
            )
        log.info("TensorRT built %s in %.1f s", name, time.perf_counter() - started)
        if self._timing_cache is not None:
            _save_timings(config, self._timing_cache)
        return bytes(plan)

    def _layers(self, plan: Path) -> tuple[ExecutedLayer, ...]:
        """The layers of the engine; none where TensorRT does not list them."""
        runtime = trt.Runtime(self._log)
        engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(plan.read_bytes())
        if engine is None:
            raise BuildFailed(f"TensorRT cannot load its own plan: {self._log.reason}")
        inspector = engine.create_engine_inspector()
        return read_layers(inspector.get_engine_information(trt.LayerInformationFormat.JSON))

    def _use_timings(self, config: trt.IBuilderConfig, path: Path) -> None:
        """Reuse the kernel timings of earlier builds; TensorRT rejects incompatible ones."""
        saved = path.read_bytes() if path.exists() else b""
        if not config.set_timing_cache(config.create_timing_cache(saved), False):
            log.warning("the timing cache was rejected; a new one begins: %s", self._log.reason)
            config.set_timing_cache(config.create_timing_cache(b""), False)


def _save_timings(config: trt.IBuilderConfig, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fresh.write_bytes(bytes(config.get_timing_cache().serialize()))
    fresh.replace(path)


def _check_conformance(graph: onnx.ModelProto, name: str) -> None:
    """Raise for what TensorRT would refuse after minutes; log what makes the engine slower."""
    for rule, findings in groupby(check(graph), lambda finding: finding.rule):
        first, *others = findings
        if first.consequence == "build failure":
            raise BuildFailed(
                f"TensorRT cannot build the {name} graph: {first.node}: {first.message}"
            )
        log.info(
            "%s graph: %s is broken %d times, first at %s: %s (%s)",
            name, rule, 1 + len(others), first.node, first.message, first.consequence,
        )  # fmt: skip


def _parser_errors(parser: trt.OnnxParser) -> str:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return "; ".join(
        f"{error.node_name()} ({error.node_operator()}): {error.desc()}" for error in errors
    )


def _computed(layers: tuple[ExecutedLayer, ...], graph: Graph) -> dict[str, ExecutedLayer]:
    return kernels(layers, (layer_name(each) for each in graph.nodes if each.op_type == "Conv"))
