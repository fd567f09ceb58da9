"""ONNX -> ONNX: ONNX Runtime compiles when it loads a graph, so the graph is the engine."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnxruntime as ort

from quantizer.compile.builder import Built, Candidate
from quantizer.compile.operations import Operation
from quantizer.errors import BuildFailed
from quantizer.model.graph import layer_name
from quantizer.model.projected import Ended
from quantizer.qdq.format import QdqFormat
from service.engines.onnxruntime_engine import EXACT_INT8, providers, require_cuda
from service.manifest import FloatType, Variant


class OnnxRuntimeBuilder:
    """Checks that the graph loads, and reads the optimised graph."""

    def __init__(self, threads: int, cuda: bool = False) -> None:
        self._threads = threads
        self._cuda = cuda
        self._providers = providers(cuda)

    @property
    def qdq_format(self) -> QdqFormat:
        """ONNX Runtime reads any Q/DQ graph; on a GPU float16 must hold the scales."""
        return QdqFormat(half_scales=self._cuda)

    @property
    def low_float(self) -> FloatType | None:
        """float16 on a GPU; its kernels on the CPU compute in float32."""
        return "f16" if self._cuda else None

    def executed(self, model: onnx.ModelProto) -> Mapping[str, str]:
        """Nothing: it is known only of an engine that is built."""
        return {}

    def build(self, candidate: Candidate, folder: Path) -> Built:
        """Write model.onnx, the graph that is served, and on the CPU raw.onnx, the whole graph.

        Raises BuildFailed.
        """
        home = folder / candidate.name
        home.mkdir(parents=True)
        path, raw = home / "model.onnx", home / "raw.onnx"
        if self._cuda:
            served = Ended(candidate.typed_graph())
            variant = candidate.described("onnxruntime-cuda", path.name)
        else:
            served = candidate.served(bytes_are_steps=True)
            onnx.save(candidate.graph, raw)
            variant = candidate.described("onnxruntime", path.name, raw.name)
        onnx.save(served.model, path)
        return candidate.built(variant, served, self._executed(path, candidate), folder)

    def operations(self, variant: Variant, folder: Path) -> tuple[Operation, ...]:
        """None: the layers of the optimised graph are not timed."""
        return ()

    def _executed(self, path: Path, candidate: Candidate) -> dict[str, str]:
        """u8 for the convolutions that became integer kernels in the optimised graph."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 4
        options.add_session_config_entry(*EXACT_INT8)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        with TemporaryDirectory() as scratch:
            optimised = Path(scratch) / "optimised.onnx"
            options.optimized_model_filepath = str(optimised)
            try:
                session = ort.InferenceSession(path, options, self._providers)
            except Exception as exc:  # its exceptions share no base class
                reason = str(exc).strip().splitlines()[0]
                raise BuildFailed(
                    f"ONNX Runtime rejects the {candidate.variant} graph: {reason}; "
                    "--runtime openvino may build it"
                ) from exc
            if self._cuda:
                require_cuda(session)
            nodes = onnx.load(optimised, load_external_data=False).graph.node
        float_type = candidate.float_type
        kinds = {"Conv": float_type, "FusedConv": float_type, "QLinearConv": "u8"}
        return {layer_name(node): kinds[node.op_type] for node in nodes if node.op_type in kinds}
