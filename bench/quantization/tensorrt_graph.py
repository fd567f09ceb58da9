"""COCO AP of the graph that TensorRT gets, executed by ONNX Runtime without a GPU.

    .venv/bin/python bench/quantization/tensorrt_graph.py MODEL --calibration DIR \\
        --images DIR --annotations FILE [--min-sqnr 25]

The graph is symmetric int8 with float regions in float16; each float16 value is rounded to float16.
Beside it stand the same layers in FP8, and the float model in float32 and in float16.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import onnx

from bench.command_line import dataset_parser, print_header, print_row
from quantizer.build import calibrate, decide, equalise_channels, read, round_weights
from quantizer.compile.builder import Builder, Built, Candidate
from quantizer.compile.operations import Operation
from quantizer.config import AnnotatedDataset, BuildConfig
from quantizer.evaluation.accuracy import Evaluation, evaluate_detectors
from quantizer.evaluation.detectors import describe, graph_detector
from quantizer.job import Job
from quantizer.model.layout import FloatDetector
from quantizer.qdq.emulation import in_float16
from quantizer.qdq.float8 import to_float8
from quantizer.qdq.float16 import to_float16
from quantizer.qdq.format import TENSORRT, QdqFormat
from qyolo.cli.progress import progress_bars
from service.engines.cpu import usable_threads
from service.manifest import FloatType, Manifest, Variant
from service.progress import ReportProgress


def main() -> None:
    parser = dataset_parser(__doc__)
    parser.add_argument("--min-sqnr", type=float, help="dB; default: what the detections need")
    arguments = parser.parse_args()
    annotated = AnnotatedDataset(arguments.images, arguments.annotations)
    config = BuildConfig(
        arguments.model,
        arguments.calibration,
        min_sqnr=arguments.min_sqnr,
        annotated=annotated,
    )
    with progress_bars() as progress:
        detector, int8 = quantized(config, progress)
        float_model = detector.model
        graphs = {
            "fp32": float_model,
            "fp16": in_float16(to_float16(float_model)),
            "int8": in_float16(to_float16(int8)),
            "fp8": in_float16(to_float16(to_float8(int8, float_model))),
        }
        manifest = describe(config.model, detector)
        evaluation = accuracy(graphs, manifest, annotated, progress)
    print(f"\n{arguments.model.stem}, {evaluation.images} images\n")
    print_header("", "AP", "AP50", "against fp32")
    for name, scores in evaluation.variants.items():
        drop = scores.ap - evaluation.variants["fp32"].ap
        print_row(name, f"{scores.ap:.4f}", f"{scores.ap50:.4f}", f"{drop:+.4f}")


class Untimed:
    """A TensorRT builder without a GPU: it builds nothing."""

    qdq_format: QdqFormat = TENSORRT
    low_float: FloatType | None = "f16"

    def executed(self, model: onnx.ModelProto) -> Mapping[str, str]:
        return {}

    def build(self, candidate: Candidate, folder: Path) -> Built:
        raise NotImplementedError("there is no GPU here")

    def operations(self, variant: Variant, folder: Path) -> tuple[Operation, ...]:
        return ()


UNTIMED: Final = Untimed()


def quantized(
    config: BuildConfig, progress: ReportProgress, builder: Builder = UNTIMED
) -> tuple[FloatDetector, onnx.ModelProto]:
    """The float detector, and its Q/DQ graph in the builder's format, float regions in float32."""
    job = Job.of(config, builder, Path(), progress)
    source = read(job)
    graph = equalise_channels(job, source)
    calibration, samples = calibrate(job, source, graph)
    weights = round_weights(job, source, graph)
    decided = decide(job, source, graph, calibration, weights, samples)
    return source.detector, decided.simulation.quantized(decided.decision.placement).model


def accuracy(
    graphs: Mapping[str, onnx.ModelProto],
    manifest: Manifest,
    annotated: AnnotatedDataset,
    progress: ReportProgress,
    threads: int = 0,
) -> Evaluation:
    """COCO AP of each graph; 0 threads: as many as this process may use."""
    count = threads or usable_threads()
    detectors = {name: graph_detector(graph, manifest, count) for name, graph in graphs.items()}
    return evaluate_detectors(detectors, manifest, annotated, progress)


if __name__ == "__main__":
    main()
