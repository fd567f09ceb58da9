"""Quantize a model with NNCF; runs in a venv of NNCF's own, started by peers.py.

usage: nncf_quantize.py MODEL.xml TENSORS.npy OUT.xml default|mixed
Prints JSON: seconds in the statistics passes, in all of quantizing, and in compiling the result.
"""

import json
import sys
import time
from collections.abc import Iterator

import nncf
import numpy as np
import openvino as ov


class Timed:
    """The calibration tensors; adds up the time that passes while NNCF goes through them."""

    def __init__(self, tensors: np.ndarray) -> None:
        self.tensors = tensors
        self.seconds = 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        start = time.perf_counter()
        try:
            for tensor in self.tensors:
                yield tensor[None]
        finally:  # NNCF takes the last tensor and does not ask for one more
            self.seconds += time.perf_counter() - start


def main() -> None:
    model, tensors, out, preset = sys.argv[1:]
    source = Timed(np.load(tensors, mmap_mode="r"))
    options = {} if preset == "default" else {"preset": nncf.QuantizationPreset.MIXED}
    start = time.perf_counter()
    quantized = nncf.quantize(
        ov.Core().read_model(model),
        nncf.Dataset(source),
        subset_size=len(source.tensors),
        **options,
    )
    seconds = time.perf_counter() - start
    ov.save_model(quantized, out, compress_to_fp16=False)
    start = time.perf_counter()
    ov.Core().compile_model(quantized, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    compile_s = time.perf_counter() - start
    told = {"statistics_s": source.seconds, "quantize_s": seconds, "compile_s": compile_s}
    print(json.dumps(told))


main()
