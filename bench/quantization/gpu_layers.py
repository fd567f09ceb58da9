"""What NVIDIA's compiler makes of YOLOv5 and YOLOv7, by its list of layers; no GPU is needed.

    .venv/bin/python bench/quantization/gpu_layers.py [MODEL.onnx | yolov5s ...] [--target sm89]

For each model and compute capability, with every layer quantized that can be: the share of the
quantized layers' multiply-accumulates that run in kernels that read int8, and the megabytes that
the kernels of one image read and write, in fp32, fp16 and int8. A name stands for the published
architecture with random weights.
"""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import onnx

from bench.command_line import parser_of, print_header, print_row
from quantizer.compile.builder import Built, Candidate
from quantizer.compile.load import load_builder
from quantizer.compile.workload import macs, share_in_int8
from quantizer.int8 import Range, Scheme, WeightScheme, activation_params
from quantizer.model.float_model import read_float_model
from quantizer.model.graph import Graph
from quantizer.qdq.format import TENSORRT
from quantizer.qdq.insertion import insert_qdq
from quantizer.qdq.placement import plan_placement
from quantizer.qdq.weights import Weights
from quantizer.study.networks import ARCHITECTURES, SIZE
from service.engines.gpu import RTX_TARGETS
from service.vision.input_size import InputSize

COLUMNS: Final = ("MB moved: fp32", "fp16", "int8", "kernels: fp16", "int8")
ANY_RANGE: Final = Range(-0.2785, 4.0)  # the compiler looks at the form of the graph alone


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("models", nargs="*", default=list(ARCHITECTURES))
    parser.add_argument("--target", action="append", choices=RTX_TARGETS, help="default: all")
    arguments = parser.parse_args()
    print_header("", "GPU", "GMAC", "in int8 kernels", *COLUMNS)
    for model in arguments.models:
        graph = graph_of(model)
        for target in arguments.target or RTX_TARGETS:
            print_row(Path(model).stem, target, *row(graph, compiled(graph, target)))


def graph_of(model: str) -> Graph:
    """A file's, or that of an architecture."""
    if model not in ARCHITECTURES:
        return read_float_model(Path(model), InputSize.of(SIZE)).graph
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{model}.onnx"
        onnx.save(ARCHITECTURES[model](), path)
        return read_float_model(path, InputSize.of(SIZE)).graph


def quantized(graph: Graph) -> onnx.ModelProto:
    """With one range for all tensors."""
    placement = plan_placement(graph, qdq_format=TENSORRT)
    params = activation_params(ANY_RANGE, Scheme(symmetric=True, half=True))
    sites = (*placement.activations, *placement.propagated)
    weights = Weights(graph, WeightScheme(half=True))
    return insert_qdq(graph, placement, {site.tensor: params for site in sites}, weights)


def compiled(graph: Graph, target: str) -> dict[str, Built]:
    """fp32, fp16, and int8 with its other layers in float16."""
    builder = load_builder("tensorrt-rtx", 1, targets=(target,))
    candidates = (
        Candidate("fp32", graph.model),
        Candidate("fp16", graph.model, "f16"),
        Candidate("int8", quantized(graph), "f16"),
    )
    with TemporaryDirectory() as folder:
        return {each.variant: builder.build(each, Path(folder)) for each in candidates}


def row(graph: Graph, built: Mapping[str, Built]) -> list[str]:
    planned = plan_placement(graph).layers
    share = share_in_int8(graph, built["int8"].executed, planned)
    moved = (f"{sum(layer.moved for layer in each.layers) / 1e6:.0f}" for each in built.values())
    counts = (str(len(built[name].layers)) for name in ("fp16", "int8"))
    return [f"{sum(macs(graph).values()) / 1e9:.2f}", f"{share:.1%}", *moved, *counts]


if __name__ == "__main__":
    main()
