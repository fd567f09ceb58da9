"""ONNX -> ONNX: ONNX Runtime compiles when it loads, so the graph itself is the engine."""

from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnxruntime as ort

from quantizer.builders import Built, Contender
from quantizer.errors import BuildFailed
from quantizer.graph import layer_name
from service.manifest import Precision, Variant


class OnnxRuntimeBuilder:
    """Checks that the graph loads and looks at what it is optimised into."""

    def __init__(self, threads: int) -> None:
        self._threads = threads

    @property
    def low_float(self) -> None:
        """Its kernels on the CPU compute in float32."""

    def profile(self, model: onnx.ModelProto) -> None:
        """Its profile has no integer kernel to compare with: Conv and SiLU do not become one."""

    def build(self, contender: Contender, folder: Path) -> Built:
        """Write model.onnx; raises BuildFailed."""
        home = folder / contender.name
        home.mkdir(parents=True)
        path = home / "model.onnx"
        onnx.save(contender.graph, path)
        variant = Variant(
            runtime="onnxruntime",
            precision=contender.variant,
            model=path.relative_to(folder).as_posix(),
        )
        return Built(variant, self._executed(path, contender.variant), path.stat().st_size)

    def _executed(self, path: Path, precision: Precision) -> dict[str, str]:
        """u8 for the convolutions that became integer kernels in the optimised graph."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        with TemporaryDirectory() as scratch:
            optimised = Path(scratch) / "optimised.onnx"
            options.optimized_model_filepath = str(optimised)
            try:
                ort.InferenceSession(path, options, ["CPUExecutionProvider"])
            except Exception as exc:  # its exceptions share no base of their own
                reason = str(exc).strip().splitlines()[0]
                raise BuildFailed(f"ONNX Runtime rejects the {precision} graph: {reason}") from exc
            nodes = onnx.load(optimised, load_external_data=False).graph.node
        kinds = {"Conv": "f32", "FusedConv": "f32", "QLinearConv": "u8"}
        return {layer_name(node): kinds[node.op_type] for node in nodes if node.op_type in kinds}
