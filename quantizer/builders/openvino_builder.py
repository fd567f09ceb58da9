"""ONNX -> OpenVINO IR and its compiled blob."""

from pathlib import Path

import onnx
import openvino as ov

from quantizer.builders import Built
from quantizer.errors import BuildFailed
from service.engines.openvino_engine import blob_key, compile_options
from service.manifest import Precision, Variant


class OpenVinoBuilder:
    """Compiles for this processor's instruction sets."""

    def __init__(self, threads: int) -> None:
        self._options = compile_options(threads)
        self._core = ov.Core()

    def build(self, model: onnx.ModelProto, folder: Path, precision: Precision) -> Built:
        """Write model.xml, model.bin and model.blob; raises BuildFailed."""
        home = folder / precision
        home.mkdir(parents=True)
        xml, blob = home / "model.xml", home / "model.blob"
        try:
            network = self._core.read_model(model.SerializeToString())
            ov.save_model(network, xml, compress_to_fp16=False)
            # Compiled from the file: what is served is what was written.
            compiled = self._core.compile_model(self._core.read_model(xml), "CPU", self._options)
            blob.write_bytes(compiled.export_model().getvalue())
        except RuntimeError as exc:
            reason = str(exc).strip().splitlines()[-1]
            raise BuildFailed(f"OpenVINO cannot compile the {precision} graph: {reason}") from exc
        variant = Variant(
            runtime="openvino",
            precision=precision,
            model=xml.relative_to(folder).as_posix(),
            blob=blob.relative_to(folder).as_posix(),
            blob_key=blob_key(),
        )
        size = sum(path.stat().st_size for path in home.iterdir())
        return Built(variant, _executed(compiled), size)


def _executed(compiled: ov.CompiledModel) -> dict[str, str]:
    """The precision of each convolution in the execution graph, by the names of the ONNX nodes
    that were fused into it."""
    precisions = {}
    for operation in compiled.get_runtime_model().get_ordered_ops():
        info = operation.get_rt_info()
        if info["layerType"].astype(str) == "Convolution":
            for name in info["originalLayersNames"].astype(str).split(","):
                precisions[name] = info["runtimePrecision"].astype(str)
    return precisions
