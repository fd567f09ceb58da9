"""Quantize a model with NNCF or ONNX Runtime, in the environment that has it.

    quantize.py nncf MODEL.xml TENSORS.npy OUT.xml default|mixed
    quantize.py onnxruntime MODEL.onnx TENSORS.npy OUT.onnx MinMax|Entropy|Percentile

TENSORS is f32[N,3,S,S], one calibration image each. Prints seconds as JSON. NNCF and OpenVINO send
nothing if `openvino_telemetry` cannot be imported.
"""

import json
import sys
import time
from collections.abc import Iterator

import numpy as np


class Timed:
    """Calibration tensors f32[1,3,S,S]; `seconds` adds up while NNCF iterates over them."""

    def __init__(self, tensors: np.ndarray) -> None:
        self.tensors = tensors
        self.seconds = 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        start = time.perf_counter()
        try:
            for tensor in self.tensors:
                yield tensor[None]
        finally:  # NNCF does not iterate past the last tensor
            self.seconds += time.perf_counter() - start


def nncf(model: str, tensors: np.ndarray, out: str, preset: str) -> dict[str, float]:
    """Seconds in the statistics passes, in all of quantizing, and in compiling the result."""
    import nncf
    import openvino as ov

    source = Timed(tensors)
    options = {} if preset == "default" else {"preset": nncf.QuantizationPreset.MIXED}
    start = time.perf_counter()
    quantized = nncf.quantize(
        ov.Core().read_model(model), nncf.Dataset(source), subset_size=len(tensors), **options
    )
    quantize_s = time.perf_counter() - start
    ov.save_model(quantized, out, compress_to_fp16=False)
    start = time.perf_counter()
    ov.Core().compile_model(quantized, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    compile_s = time.perf_counter() - start
    return {"statistics_s": source.seconds, "quantize_s": quantize_s, "compile_s": compile_s}


def onnxruntime(model: str, tensors: np.ndarray, out: str, method: str) -> dict[str, float]:
    """uint8 activations, int8 weights for each channel; returns seconds.

    Convolutions only, as is usual for YOLO: with the decode in int8 as well, no box is left.
    """
    import onnxruntime as ort
    from onnxruntime import quantization as quant

    name = ort.InferenceSession(model).get_inputs()[0].name

    class Reader(quant.CalibrationDataReader):
        def __init__(self) -> None:
            self._feeds = ({name: tensor[None]} for tensor in tensors)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._feeds, None)

    start = time.perf_counter()
    quant.quantize_static(
        model,
        out,
        Reader(),
        quant_format=quant.QuantFormat.QDQ,
        op_types_to_quantize=["Conv"],
        per_channel=True,
        activation_type=quant.QuantType.QUInt8,
        weight_type=quant.QuantType.QInt8,
        calibrate_method=quant.CalibrationMethod[method],
    )
    return {"quantize_s": time.perf_counter() - start}


if __name__ == "__main__":
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    peer, model, tensors, out, option = sys.argv[1:]
    quantizer = {"nncf": nncf, "onnxruntime": onnxruntime}[peer]
    print(json.dumps(quantizer(model, np.load(tensors, mmap_mode="r"), out, option)))
