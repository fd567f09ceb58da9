"""How close each layer of an engine comes to the peak of this processor.

    .venv/bin/python bench/quantization/roofline.py MODEL_FOLDER [--variant int8] [--threads N]

A layer's time is OpenVINO's own, the median of a few inferences. The peak is the fastest of eight
3x3 convolutions of 256 channels at 80x80 in OpenVINO, in each precision that the engine uses,
measured in the same run. Prints the multiply-accumulates, milliseconds and GMAC/s of every
convolution beside the peak of its precision; the operations around the convolutions; and the
model's share of the peak of the variant's precision, over the whole time of the engine, which is
the median of inferences without a profile.
"""

import argparse
import time
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.command_line import parser_of, print_header, print_row
from quantizer.compile.builder import INT8_NAMES, Candidate
from quantizer.compile.load import load_builder
from quantizer.compile.operations import Operation
from quantizer.int8 import Range, Scheme, activation_params
from quantizer.model.graph import Graph
from quantizer.qdq.insertion import insert_qdq
from quantizer.qdq.placement import plan_placement
from quantizer.qdq.weights import Weights
from quantizer.report.execution import ExecutionReport
from service.engines import load_engine
from service.engines.cpu import usable_threads
from service.manifest import FloatType, Manifest, Precision, Variant, read_manifest
from service.vision.preprocess import PREPROCESS

CHANNELS: Final = 256
SIDE: Final = 80
DEPTH: Final = 8
ROUNDS: Final = 20
WARM_UP: Final = 3
INT8: Final = "int8"
# The variant that computes in each of OpenVINO's float types.
VARIANTS: Final[Mapping[FloatType, Precision]] = {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}


def main() -> None:
    arguments = _arguments()
    folder, threads = arguments.folder, arguments.threads
    manifest = read_manifest(folder)
    variant = manifest.variants[arguments.variant]
    operations = load_builder(variant.runtime, threads).operations(variant, folder)
    execution = ExecutionReport.of(operations)
    if execution is None:
        raise SystemExit(f"{variant.runtime} reports no times of layers")
    convolutions = [each for each in operations if each.convolves]
    peaks = measure_peaks({peak_of(each.precision) for each in convolutions}, threads)
    engine_ms = time_engine(folder, manifest, variant, threads)
    print(f"{manifest.name} {arguments.variant}, {variant.runtime}, {threads} threads\n")
    print_convolutions(convolutions, peaks)
    print_others(execution)
    rate = execution.gmac / engine_ms * 1000
    shares = " and ".join(
        f"{rate / peak:.1%} of the {name} peak, {peak:.0f} GMAC/s" for name, peak in peaks.items()
    )
    print(
        f"\n{execution.gmac:.2f} GMAC in {engine_ms:.2f} ms: {rate:.0f} GMAC/s, {shares}.\n"
        f"Outside convolutions: {execution.outside_convolutions:.1%} of the time of the operations."
    )


def _arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("folder", type=Path, help="model folder")
    parser.add_argument("--variant", default="int8", help="default: int8")
    parser.add_argument("--threads", type=int, default=usable_threads())
    return parser.parse_args()


def peak_of(precision: str) -> str:
    """The peak with which a precision of the runtime is compared."""
    return INT8 if precision in INT8_NAMES else precision


def measure_peaks(names: Collection[str], threads: int) -> dict[str, float]:
    """GMAC/s by peak: int8, or a float type."""
    float_graph = Graph.of(_network())
    builder = load_builder("openvino", threads)
    placement = plan_placement(float_graph, {}, builder.qdq_format)
    params = activation_params(Range(-4.0, 4.0), Scheme())
    weights = Weights(float_graph, builder.qdq_format.weight_scheme)
    integers = insert_qdq(float_graph, placement, dict.fromkeys(placement.tensors, params), weights)
    candidates = {INT8: Candidate("int8", integers)}
    candidates |= {
        float_type: Candidate(variant, float_graph.model, float_type)
        for float_type, variant in VARIANTS.items()
    }
    peaks = {}
    for name in sorted(names):
        with TemporaryDirectory() as scratch:
            variant = builder.build(candidates[name], Path(scratch)).variant
            operations = builder.operations(variant, Path(scratch))
        peaks[name] = max(each.macs / each.ms / 1e6 for each in operations if each.ms)
    return peaks


def _network() -> onnx.ModelProto:
    """The eight convolutions, between a narrow one that reads the image and one that writes."""
    random = np.random.default_rng(0)
    graph = onnx.GraphProto(name="peak")
    graph.input.append(_described("images", 3))
    x = "images"
    widths = (3, *[CHANNELS] * (DEPTH + 1), 8)
    for index, (read, made) in enumerate(pairwise(widths)):
        kernel = 3 if read == made else 1
        shape = (made, read, kernel, kernel)
        weight = random.standard_normal(shape, np.float32) / np.sqrt(read * kernel**2)
        bias = random.standard_normal(made, np.float32) / 2
        names = [f"{kind}{index}" for kind in ("weight", "bias")]
        for name, value in zip(names, (weight, bias), strict=True):
            graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
        graph.node.append(
            helper.make_node(
                "Conv", [x, *names], [f"y{index}"], name=f"conv{index}",
                kernel_shape=[kernel, kernel], pads=[kernel // 2] * 4,
            )
        )  # fmt: skip
        x = f"y{index}"
    graph.output.append(_described(x, widths[-1]))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model)


def _described(name: str, channels: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, SIDE, SIDE])


def time_engine(folder: Path, manifest: Manifest, variant: Variant, threads: int) -> float:
    """Median milliseconds of one inference, without a profile."""
    how = PREPROCESS[manifest.preprocess]
    engine = load_engine(folder, variant, threads, preprocess=how)
    image = np.zeros((1, manifest.size.height, manifest.size.width, 3), np.uint8)
    times = []
    for _ in range(WARM_UP + ROUNDS):
        start = time.perf_counter()
        engine.infer(image)
        times.append((time.perf_counter() - start) * 1000)
    engine.close()
    return median(times[WARM_UP:])


def print_convolutions(convolutions: Sequence[Operation], peaks: Mapping[str, float]) -> None:
    print_header("convolution", "kernel", "reads", "MMAC", "ms", "GMAC/s", "of its peak")
    for each in convolutions:
        rate = each.macs / each.ms / 1e6 if each.ms else 0.0
        share = rate / peaks[peak_of(each.precision)]
        print_row(
            *(each.name.removesuffix("/WithoutBiases"), each.kernel, each.precision),
            *(f"{each.macs / 1e6:.1f}", f"{each.ms:.3f}", f"{rate:.0f}", f"{share:.0%}"),
        )


def print_others(execution: ExecutionReport) -> None:
    print()
    print_header("operation", "reads", "how many", "ms", "share of the time")
    for each in execution.kinds:
        print_row(each.kind, each.precision, each.count, f"{each.ms:.3f}", f"{each.share:.1%}")


if __name__ == "__main__":
    main()
