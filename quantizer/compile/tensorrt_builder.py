"""ONNX -> plans of TensorRT or TensorRT for RTX: explicit quantization, strongly typed networks."""

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import onnx

from quantizer.compile.builder import Built, Candidate, Resources
from quantizer.compile.executed_layers import (
    ExecutedLayer,
    kernels,
    precisions,
    read_layers,
    read_listing,
)
from quantizer.compile.operations import Operation
from quantizer.compile.tensorrt_callbacks import build_monitor
from quantizer.errors import BuildFailed
from quantizer.model.graph import Graph, layer_name
from quantizer.qdq.format import TENSORRT, QdqFormat
from service.engines.gpu import FP8_TARGETS
from service.engines.tensorrt_engine import require_gpu
from service.engines.tensorrt_library import Library
from service.manifest import FloatType, Variant
from service.progress import ReportProgress

if TYPE_CHECKING:
    import tensorrt_rtx_bindings as trt

GRAPH: Final = "model.onnx"
MEBIBYTE: Final = 1 << 20

log = logging.getLogger(__name__)


class TensorRtBuilder:
    """Compiles for the GPU of this machine, or for `targets`: compute capabilities, as sm89.

    Raises DeviceUnavailable where no target is named and no GPU is here.
    """

    def __init__(
        self,
        library: Library,
        targets: tuple[str, ...],
        resources: Resources,
        progress: ReportProgress,
    ) -> None:
        gpu = None if targets else require_gpu(library)
        self._library = library
        self._key = library.key(gpu)
        self._targets = targets if gpu is None else (gpu.target,)
        self._workspace_mib = resources.workspace_mib
        times_kernels = library.runtime == "tensorrt" and resources.timing_caches is not None
        self._timing_cache = (
            resources.timing_caches / f"{self._key}.timing"
            if times_kernels and resources.timing_caches
            else None
        )
        self._progress = progress
        self._log = library.log
        self._builder: trt.Builder = library.module.Builder(self._log)

    @property
    def qdq_format(self) -> QdqFormat:
        """Symmetric, with Q/DQ before and after every layer that is to run in int8."""
        float8 = self._library.runtime == "tensorrt-rtx" and FP8_TARGETS.issuperset(self._targets)
        return replace(TENSORRT, float8=float8)

    @property
    def low_float(self) -> FloatType:
        """float16: every GPU that TensorRT 10 supports multiplies in it."""
        return "f16"

    def executed(self, model: onnx.ModelProto) -> Mapping[str, str]:
        """Builds in a temporary folder, and reads the last target's plan; raises BuildFailed."""
        with TemporaryDirectory() as folder:
            built = self.compile(Candidate("fp16", model, "f16"), Path(folder))
        computed = _computed(built.layers, Graph.of(model))
        return {name: layer.precision for name, layer in computed.items()}

    def build(self, candidate: Candidate, folder: Path) -> Built:
        """What `compile` writes, and the same of the whole graph in the folder raw.

        Raises BuildFailed.
        """
        built = self.compile(candidate, folder)
        self._write(candidate.typed_graph(), f"{candidate.name}/raw", folder)
        raw = f"{candidate.name}/raw/{GRAPH}"
        return replace(built, variant=built.variant.model_copy(update={"raw": raw}))

    def compile(self, candidate: Candidate, folder: Path) -> Built:
        """Write model.onnx, the graph that is served, and a plan of it for each target.

        Raises BuildFailed.
        """
        graph = candidate.gpu_graph()
        layers = self._write(graph, candidate.name, folder)
        plans = {target: f"{candidate.name}/{_plan_name(target)}" for target in self._targets}
        runtime = self._library.runtime
        variant = candidate.described(runtime, GRAPH, blob_key=self._key).model_copy(
            update={"plans": plans}
            if runtime == "tensorrt-rtx"
            else {"blob": plans[self._targets[0]]}
        )
        return Built(
            variant,
            precisions(
                {target: _computed(each, Graph.of(graph)) for target, each in layers.items()}
            ),
            max((folder / plan).stat().st_size for plan in plans.values()),
            layers[self._targets[-1]],
        )

    def _write(
        self, graph: onnx.ModelProto, name: str, folder: Path
    ) -> dict[str, tuple[ExecutedLayer, ...]]:
        """Write a graph and its plans into folder/name; the layers of each target's plan."""
        home = folder / name
        home.mkdir(parents=True)
        onnx.save(graph, home / GRAPH)
        layers: dict[str, tuple[ExecutedLayer, ...]] = {}
        for target in self._targets:
            plan = home / _plan_name(target)
            plan.write_bytes(self._plan(graph, name, target))
            layers[target] = self._layers(plan)
        return layers

    def operations(self, variant: Variant, folder: Path) -> tuple[Operation, ...]:
        """None: `Built.layers` lists the kernels, without times."""
        return ()

    def _plan(self, graph: onnx.ModelProto, name: str, target: str) -> bytes:
        """The serialized engine of a graph; TensorRT computes in the types written into it."""
        module = self._library.module
        network: trt.INetworkDefinition = self._builder.create_network(
            1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        )
        self._parse(graph, name, network)
        config = self._builder.create_builder_config()
        config.clear_flag(module.BuilderFlag.TF32)  # fp32 is the reference: no 10-bit mantissas
        config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
        config.progress_monitor = build_monitor(module, f"compile {name}", self._progress)
        self._library.set_target(config, target)
        if self._workspace_mib is not None:
            limit = self._workspace_mib * MEBIBYTE
            config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, limit)
        if self._timing_cache is not None:
            self._use_timings(config, self._timing_cache)
        self._log.listing = ""
        started = time.perf_counter()
        plan = self._builder.build_serialized_network(network, config)
        if plan is None:
            raise BuildFailed(
                f"{self._library.name} cannot build the {name} engine for {target}: "
                f"{self._log.reason} "
                "(where memory is short, --workspace MIB limits what it may try)"
            )
        seconds = time.perf_counter() - started
        log.info("%s built %s for %s in %.1f s", self._library.name, name, target, seconds)
        if self._timing_cache is not None:
            _save_timings(config, self._timing_cache)
        return bytes(plan)

    def _parse(self, graph: onnx.ModelProto, name: str, network: "trt.INetworkDefinition") -> None:
        """Read the graph into the network; raises BuildFailed."""
        parser: trt.OnnxParser = self._library.module.OnnxParser(network, self._log)
        if not parser.parse(graph.SerializeToString()):
            raise BuildFailed(
                f"{self._library.name} cannot read the {name} graph: {_parser_errors(parser)}"
            )

    def _layers(self, plan: Path) -> tuple[ExecutedLayer, ...]:
        """The layers of the engine; none where TensorRT does not list them.

        TensorRT for RTX lists them as it builds, and so without a GPU.
        """
        if self._library.runtime == "tensorrt-rtx":
            return read_listing(self._log.listing)
        module = self._library.module
        runtime: trt.Runtime = module.Runtime(self._log)
        engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(plan.read_bytes())
        if engine is None:
            raise BuildFailed(f"TensorRT cannot load its own plan: {self._log.reason}")
        inspector = engine.create_engine_inspector()
        return read_layers(inspector.get_engine_information(module.LayerInformationFormat.JSON))

    def _use_timings(self, config: "trt.IBuilderConfig", path: Path) -> None:
        """Reuse the kernel timings of earlier builds; TensorRT rejects incompatible ones."""
        saved = path.read_bytes() if path.exists() else b""
        if not config.set_timing_cache(config.create_timing_cache(saved), False):
            log.warning("the timing cache was rejected; a new one begins: %s", self._log.reason)
            config.set_timing_cache(config.create_timing_cache(b""), False)


def _plan_name(target: str) -> str:
    return f"model.{target}.plan"


def _save_timings(config: "trt.IBuilderConfig", path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fresh.write_bytes(bytes(config.get_timing_cache().serialize()))
    fresh.replace(path)


def _parser_errors(parser: "trt.OnnxParser") -> str:
    """In one line; the library adds that there is no driver, which does not matter here."""
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return "; ".join(
        f"{error.node_name()} ({error.node_operator()}): "
        + " ".join(line for line in error.desc().splitlines() if "Cuda Runtime" not in line)
        for error in errors
    )


def _computed(layers: tuple[ExecutedLayer, ...], graph: Graph) -> dict[str, ExecutedLayer]:
    return kernels(layers, (layer_name(each) for each in graph.nodes if each.op_type == "Conv"))
