"""Quantize a model with ONNX Runtime's quantize_static; runs in a venv of its own.

usage: ort_quantize.py MODEL.onnx TENSORS.npy OUT.onnx MinMax|Entropy|Percentile
Convolutions only, as its users are told to for YOLO (with the decode in int8 no box is left): uint8
activations, int8 weights for each channel. Prints JSON: seconds in all.
"""

import json
import sys
import time

import numpy as np
import onnxruntime as ort
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)


class Tensors(CalibrationDataReader):
    def __init__(self, tensors: np.ndarray, name: str) -> None:
        self._left = iter(tensors)
        self._name = name

    def get_next(self) -> dict[str, np.ndarray] | None:
        tensor = next(self._left, None)
        return None if tensor is None else {self._name: tensor[None]}


def main() -> None:
    model, tensors, out, method = sys.argv[1:]
    name = ort.InferenceSession(model).get_inputs()[0].name
    start = time.perf_counter()
    quantize_static(
        model,
        out,
        Tensors(np.load(tensors, mmap_mode="r"), name),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[method],
    )
    print(json.dumps({"all_s": time.perf_counter() - start}))


main()
