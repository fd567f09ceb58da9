"""The accuracy of the graph that TensorRT gets, executed by ONNX Runtime: no GPU is needed.

    .venv/bin/python bench/quantization/tensorrt_graph.py MODEL --calibration DIR \\
        --images DIR --annotations FILE

Symmetric int8 with float16 islands, every float16 value really rounded to float16. What a GPU saves
in each layer is not known here, so the search for sensitive layers takes all to cost alike.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
from onnx import TensorProto, helper, numpy_helper

from quantizer.calibration.images import Images, find_images, split
from quantizer.calibration.statistics import observe
from quantizer.compile.builder import Built, Candidate, Profile
from quantizer.compile.conformance import check
from quantizer.config import MIN_SQNR
from quantizer.evaluation.accuracy import Evaluation, evaluate_detectors
from quantizer.int8 import Range, Scheme, WeightScheme
from quantizer.model.float_model import FloatModel, read_float_model
from quantizer.model.layout import Layout, recognise
from quantizer.qdq.bias import averaged_tensors
from quantizer.qdq.float16 import to_float16
from quantizer.qdq.format import TENSORRT, QdqFormat
from quantizer.qdq.placement import plan_placement
from quantizer.qdq.quantize import Ranges
from quantizer.qdq.weights import Weights
from quantizer.sensitivity.decision import decide
from quantizer.sensitivity.simulation import MOST_LOOKED_AT, Simulation, find_samples
from quantizer.study.study import detector_of
from qyolo.cli.progress import progress_bars
from service.engines.cpu import usable_threads
from service.manifest import FloatType, Manifest, Variant
from service.progress import Progress, ReportProgress
from service.vision.heads import HEADS
from service.vision.preprocess import PREPROCESS

SIZE = 640


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--min-sqnr", type=float, default=MIN_SQNR)
    arguments = parser.parse_args()
    with progress_bars() as progress:
        model = read_float_model(arguments.model, SIZE)
        layout = recognise(model)
        int8 = quantized(model, layout, arguments.calibration, arguments.min_sqnr, progress)
        graphs = {
            "fp32": model.model,
            "fp16": in_float16(to_float16(model.model)),
            "int8": in_float16(to_float16(int8)),
        }
        found = accuracy(graphs, layout, arguments.images, arguments.annotations, progress)
    findings = check(to_float16(int8))
    print(f"\n{arguments.model.stem}, {found.images} images, {len(findings)} rules broken\n")
    print("| | AP | AP50 | against fp32 |\n|---|---|---|---|")
    for name, scores in found.variants.items():
        drop = scores.ap - found.variants["fp32"].ap
        print(f"| {name} | {scores.ap:.4f} | {scores.ap50:.4f} | {drop:+.4f} |")
    for finding in findings:
        print(f"{finding.rule} at {finding.node}: {finding.message}", file=sys.stderr)


class Untimed:
    """A builder's answers where there is no GPU to ask."""

    qdq_format: QdqFormat = TENSORRT
    low_float: FloatType | None = "f16"

    def profile(self, model: onnx.ModelProto) -> Profile | None:
        return None

    def build(self, candidate: Candidate, folder: Path) -> Built:
        raise NotImplementedError("there is no GPU here")


def quantized(
    model: FloatModel,
    layout: Layout,
    calibration: Path,
    min_sqnr: float,
    progress: ReportProgress,
) -> onnx.ModelProto:
    """The Q/DQ graph in TensorRT's qdq_format, its islands still in float32."""
    graph, threads, how = model.graph, usable_threads(), PREPROCESS[layout.preprocess]
    paths, _ = split(find_images(calibration))
    whole = plan_placement(graph, {}, TENSORRT)
    usable = Images(paths).usable(SIZE, how, progress)
    observed = observe(graph, whole.tensors, usable, threads, averaged_tensors(graph, whole))
    scheme = Scheme(symmetric=True, half=True)
    ranges = Ranges(graph, observed.histograms, "uh", scheme, Range(0.0, 255 / how.divisor))
    spread = Images(paths[:: max(1, len(paths) // MOST_LOOKED_AT)]).usable(SIZE, how, _silence)
    head = HEADS[layout.head]
    simulation = Simulation(
        graph,
        ranges,
        Weights(graph, WeightScheme(half=True)),
        observed.channel_means,
        head,
        SIZE,
        find_samples(graph, head, SIZE, spread, threads),
        threads,
    )
    decision = decide(simulation, {}, Untimed(), min_sqnr, progress)
    return simulation.quantized(decision.placement).model


def accuracy(
    graphs: Mapping[str, onnx.ModelProto],
    layout: Layout,
    images: Path,
    annotations: Path,
    progress: ReportProgress,
) -> Evaluation:
    """COCO AP of each graph."""
    variant = Variant(runtime="onnxruntime", precision="fp32", model="model.onnx")
    manifest = Manifest(
        name="model",
        device="cpu",
        size=SIZE,
        head=layout.head,
        preprocess=layout.preprocess,
        class_names=layout.class_names,
        default="fp32",
        variants={"fp32": variant},
        source_sha256="",
        versions={},
        created="",
    )
    threads = usable_threads()
    detectors = {name: detector_of(graph, manifest, threads) for name, graph in graphs.items()}
    return evaluate_detectors(detectors, manifest, images, annotations, progress)


def in_float16(typed: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 graph that rounds to float16 whatever the typed graph holds in float16.

    ONNX Runtime has no float16 kernels for processors without float16, and computes such a graph in
    float32 from end to end; two Casts after each node are what it cannot leave out.
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
    nodes = [made for node in graph.node for made in _rounded(node, halves)]
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


def _silence(progress: Progress) -> None:
    """Report nothing."""


if __name__ == "__main__":
    sys.exit(main())
