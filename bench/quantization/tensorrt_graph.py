"""COCO AP of the graph that TensorRT gets, executed by ONNX Runtime without a GPU.

    .venv/bin/python bench/quantization/tensorrt_graph.py MODEL --calibration DIR \\
        --images DIR --annotations FILE [--min-sqnr 25]

The graph is symmetric int8 with float regions in float16; each float16 value is rounded to float16.
Beside it stand the float model in float32 and in float16. The time that a GPU saves in a layer is
not known here, so the search for sensitive layers gives every layer the same cost. Violations of
TensorRT's rules are printed to stderr.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.command_line import dataset_parser, print_header, print_row
from quantizer.build import calibrate, decide, read
from quantizer.compile.builder import Built, Candidate, Profile
from quantizer.compile.conformance import check
from quantizer.config import MIN_SQNR, AnnotatedDataset, BuildConfig
from quantizer.evaluation.accuracy import Evaluation, evaluate_detectors
from quantizer.evaluation.detectors import describe, graph_detector
from quantizer.job import Job
from quantizer.model.layout import FloatDetector
from quantizer.qdq.float16 import to_float16
from quantizer.qdq.format import TENSORRT, QdqFormat
from qyolo.cli.progress import progress_bars
from service.engines.cpu import usable_threads
from service.manifest import FloatType, Manifest
from service.progress import ReportProgress


def main() -> None:
    parser = dataset_parser(__doc__)
    parser.add_argument("--min-sqnr", type=float, default=MIN_SQNR)
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
        }
        manifest = describe(config.model, detector)
        evaluation = accuracy(graphs, manifest, annotated, progress)
    findings = check(to_float16(int8))
    print(f"\n{arguments.model.stem}, {evaluation.images} images, {len(findings)} rules broken\n")
    print_header("", "AP", "AP50", "against fp32")
    for name, scores in evaluation.variants.items():
        drop = scores.ap - evaluation.variants["fp32"].ap
        print_row(name, f"{scores.ap:.4f}", f"{scores.ap50:.4f}", f"{drop:+.4f}")
    for finding in findings:
        print(f"{finding.rule} at {finding.node}: {finding.message}", file=sys.stderr)


class Untimed:
    """A TensorRT builder without a GPU: it has no profile and builds nothing."""

    qdq_format: QdqFormat = TENSORRT
    low_float: FloatType | None = "f16"

    def profile(self, model: onnx.ModelProto) -> Profile | None:
        return None

    def build(self, candidate: Candidate, folder: Path) -> Built:
        raise NotImplementedError("there is no GPU here")


def quantized(
    config: BuildConfig, progress: ReportProgress
) -> tuple[FloatDetector, onnx.ModelProto]:
    """The float detector, and its Q/DQ graph in TensorRT's format with float regions in float32."""
    job = Job.of(config, Untimed(), Path(), progress)
    source = read(job)
    decided = decide(job, source, calibrate(job, source))
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


def in_float16(typed: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 graph that rounds each value that the typed graph holds in float16.

    On a processor without float16, ONNX Runtime computes a float16 graph in float32 from end to
    end. It cannot leave out two Casts after each node.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(typed)
    graph = copy.graph
    halves = {
        value.name
        for value in graph.value_info
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16
    }
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(tensor).astype("float32")
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    nodes = [part for node in graph.node for part in _rounded(node, halves)]
    for field in ("node", "value_info"):
        graph.ClearField(field)
    graph.node.extend(nodes)
    return copy


def _rounded(original: onnx.NodeProto, halves: set[str]) -> Iterator[onnx.NodeProto]:
    node = onnx.NodeProto()
    node.CopyFrom(original)
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT16:
            attribute.i = TensorProto.FLOAT
    rounded = [name for name in node.output if name in halves]
    for index, name in enumerate(node.output):
        if name in halves:
            node.output[index] = f"{name}/exact"
    yield node
    for name in rounded:
        half = f"{name}/half"
        yield helper.make_node("Cast", [f"{name}/exact"], [half], to=TensorProto.FLOAT16)
        yield helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT)


if __name__ == "__main__":
    main()
